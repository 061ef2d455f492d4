// River, on pgx: a program of the protocol that clients/program.py describes.
//
// What makes it fast, by its documentation: InsertManyFast, which uses COPY ("Batch job insertion"); the
// notifier, which wakes a client whose queue got a job; completing jobs in batches, its default. The
// settings are those of its own benchmark (`river bench`), which calls them "much better than the
// client's default values": FetchCooldown 2 ms, FetchPollInterval 20 ms; MaxWorkers 1,000, which it calls
// the most optimal, and which was faster here than its 2,000. With the default cooldown of 100 ms a client
// notifies and fetches at most 10 times a second. As there, a job is acknowledged when the client's
// subscription says so: then its completion is committed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"golang.org/x/sys/unix"
)

const (
	batch      = 1000
	warmed     = 50
	maxWorkers = 1000
)

// Order is a message: about 120 bytes of JSON.
type Order struct {
	Order    int     `json:"order"`
	Customer string  `json:"customer"`
	Amount   float64 `json:"amount"`
	Note     string  `json:"note"`
}

func (Order) Kind() string { return "order" }

func order(number int) Order {
	return Order{number, fmt.Sprintf("customer-%d", number%1000), float64(number) * 1.5, strings.Repeat("x", 60)}
}

// now is CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
func now() int64 {
	var time unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &time); err != nil {
		panic(err)
	}
	return time.Nano()
}

func say(value any) {
	line, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, role, address string, rest []string) error {
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		return err
	}
	defer pool.Close()
	switch role {
	case "prepare":
		return prepare(ctx, pool)
	case "consume":
		concurrency, err := strconv.Atoi(rest[1])
		if err != nil {
			return err
		}
		return consume(ctx, pool, rest[0], concurrency)
	}
	messages, err := strconv.Atoi(rest[0])
	if err != nil {
		return err
	}
	return publish(ctx, pool, role, messages)
}

func prepare(ctx context.Context, pool *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet()})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	say(true)
	return err
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func config() *river.Config {
	return &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            quiet(),
	}
}

// publish does one of the roles of a publisher, and says when it began and ended.
func publish(ctx context.Context, pool *pgxpool.Pool, role string, messages int) error {
	client, err := river.NewClient(riverpgxv5.New(pool), config())
	if err != nil {
		return err
	}
	many := func(first, last int) error {
		params := make([]river.InsertManyParams, 0, last-first)
		for number := first; number < last; number++ {
			params = append(params, river.InsertManyParams{Args: order(number)})
		}
		_, err := client.InsertManyFast(ctx, params)
		return err
	}
	single := func(number int) error {
		_, err := client.Insert(ctx, order(number), nil)
		return err
	}
	switch role {
	case "batches", "fill":
		if role == "batches" {
			err = many(0, batch)
		}
		begun := now()
		for first := 0; err == nil && first < messages; first += batch {
			err = many(first, min(first+batch, messages))
		}
		say([]int64{begun, now()})
	case "singles":
		for number := 0; err == nil && number < warmed; number++ {
			err = single(number)
		}
		begun := now()
		for number := 0; err == nil && number < messages; number++ {
			err = single(number)
		}
		say([]int64{begun, now()})
	case "slowly":
		times := make([][2]int64, messages)
		for number := 0; err == nil && number < messages; number++ {
			time.Sleep(20*time.Millisecond + time.Duration(rand.Int64N(int64(30*time.Millisecond))))
			times[number], err = timed(ctx, pool, client, number)
		}
		say(times)
	default:
		err = errors.New("there is no role " + role)
	}
	return err
}

// timed publishes one, and returns when its commit was sent and when it was confirmed.
func timed(ctx context.Context, pool *pgxpool.Pool, client *river.Client[pgx.Tx], number int) ([2]int64, error) {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return [2]int64{}, err
	}
	if _, err := client.InsertTx(ctx, tx, order(number), nil); err != nil {
		return [2]int64{}, err
	}
	before := now()
	err = tx.Commit(ctx)
	return [2]int64{before, now()}, err
}

// worker is the handler, and the tally of what it handled.
type worker struct {
	river.WorkerDefaults[Order]
	measure string
	first   atomic.Int64
	handled atomic.Int64
	mutex   sync.Mutex
	entered map[int]int64
}

func (w *worker) Work(_ context.Context, job *river.Job[Order]) error {
	if w.first.Load() == 0 {
		w.first.CompareAndSwap(0, now())
	}
	switch w.measure {
	case "wake":
		at := now()
		w.mutex.Lock()
		if _, again := w.entered[job.Args.Order]; !again {
			w.entered[job.Args.Order] = at
		}
		w.mutex.Unlock()
	case "consume_await":
		time.Sleep(time.Millisecond)
	}
	w.handled.Add(1)
	return nil
}

// consume says it is ready, waits for a line, consumes until the next, and reports.
func consume(ctx context.Context, pool *pgxpool.Pool, measure string, concurrency int) error {
	tally := &worker{measure: measure, entered: map[int]int64{}}
	settings := config()
	settings.Workers = river.NewWorkers()
	river.AddWorker(settings.Workers, tally)
	if concurrency == 1 {
		concurrency = maxWorkers
	}
	settings.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: concurrency}}
	client, err := river.NewClient(riverpgxv5.New(pool), settings)
	if err != nil {
		return err
	}
	events, unsubscribe := client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: 1_000_000, Kinds: []river.EventKind{river.EventKindJobCompleted},
	})
	var acked int64 // read once the channel is closed
	completed := make(chan struct{})
	go func() {
		defer close(completed)
		for range events {
			acked = now()
		}
	}()

	lines := bufio.NewScanner(os.Stdin)
	say(true)
	lines.Scan()
	if err := client.Start(ctx); err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() {
		lines.Scan()
		close(stopped)
	}()
	ticker := time.NewTicker(5 * time.Millisecond)
	for told, running := int64(0), true; running; {
		select {
		case <-stopped:
			running = false
		case <-ticker.C:
			if handled := tally.handled.Load(); handled != told {
				told = handled
				say(handled)
			}
		}
	}
	if err := client.Stop(ctx); err != nil { // completes what was handled
		return err
	}
	unsubscribe()
	<-completed
	say(map[string]any{
		"first": tally.first.Load(), "acked": acked, "handled": tally.handled.Load(), "entered": tally.entered,
	})
	return nil
}
