"""No wake-up is lost: every order of the steps of two, and at random with many.

No consumer polls. Every trial prints its seed. To run one again: DURABLE_NOTIFY_SEED=<seed>; to run for
longer: DURABLE_NOTIFY_TRIALS=<times as long>. Threads take decisions that depend on the seed alone,
at whatever moment comes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from psycopg import errors

import durable_notify as dn
from tests.faults import doorbell_by_hand
from tests.faults.doorbell_by_hand import (
    NEVER,
    ByFlag,
    ByFlagWithoutList,
    ByHand,
    ListTooEarly,
    Rounds,
    Step,
    WithoutList,
    WithoutSecondRead,
    interleavings,
)
from tests.support.injection import plant
from tests.support.observe import LISTENER, Listener, backends
from tests.support.sessions import Session, Sessions
from tests.support.wait import eventually

TIMES = int(os.environ.get("DURABLE_NOTIFY_TRIALS", "1"))
FIRST_SEED = int(os.environ.get("DURABLE_NOTIFY_SEED", random.randrange(10**9)))
SECONDS = 6.0 * TIMES
BOUND = 5.0
"""Seconds after which a message without a wake-up counts as lost."""
TOPICS = ["a", "b", "c"]


# Every order of the steps


def in_a_transaction(isolation: str) -> Callable[[Session, str], list[Step]]:
    def steps(session: Session, topic: str) -> list[Step]:
        return [
            lambda: session.begin(isolation),
            lambda: session.publish(topic=topic),
            session.commit,
        ]

    return steps


def with_a_savepoint(session: Session, topic: str) -> list[Step]:
    def publish() -> None:
        session.run("SAVEPOINT s")
        session.publish(topic=topic)
        session.run("RELEASE s")

    return [session.begin, publish, session.commit]


def by_itself(session: Session, topic: str) -> list[Step]:
    return [lambda: session.publish(topic=topic)]


def in_two_phases(session: Session, topic: str) -> list[Step]:
    """Where it has rung, it is not prepared but committed."""

    def publish() -> None:
        session.begin()
        session.publish(topic=topic)

    def prepare() -> None:
        try:
            session.run("PREPARE TRANSACTION 'two phases'")
        except errors.FeatureNotSupported:
            session.rollback()
            session.publish(topic=topic)
            session.run("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'two phases'")

    return [publish, prepare, lambda: session.run("COMMIT PREPARED 'two phases'")]


def by_a_retry(session: Session, topic: str) -> list[Step]:
    """What a consumer elsewhere does in its handler's transaction."""
    session.publish(topic=topic)
    (message,) = session.claim(group="g", topics=topic)
    return [
        session.begin,
        lambda: session.settle(message.token, retried=[message]),
        session.commit,
    ]


WAYS: dict[str, Callable[[Session, str], list[Step]]] = {
    "read committed": in_a_transaction("read committed"),
    "repeatable read": in_a_transaction("repeatable read"),
    "serializable": in_a_transaction("serializable"),
    "savepoint": with_a_savepoint,
    "by itself": by_itself,
    "two phases": in_two_phases,
    "retry": by_a_retry,
}


def orders_that_lose(sessions: Sessions, kind: type[ByHand], way: str) -> Iterator[int]:
    """The orders of the steps of a publisher and a consumer in which it sleeps for ever."""
    publisher = sessions.session()
    with closing(kind(sessions.dsn, "g", [])) as consumer:
        own = [getattr(consumer, step) for step in ("read", *kind.STEPS)]
        for number in itertools.count():
            consumer.turn_to([topic := f"t{number}"])
            theirs = WAYS[way](publisher, topic)
            order = next(itertools.islice(interleavings(own, theirs), number, None), None)
            if order is None:
                assert number == math.comb(len(own) + len(theirs), len(own))
                break
            consumer.got.clear()
            for step in order:
                step()
            if not consumer.got and consumer.wakes():
                consumer.read()
            if not consumer.got:
                yield number
            consumer.disarm()
            consumer.rung()  # what it has ignored is not to wake it next time


def loses(sessions: Sessions, kind: type[ByHand], way: str) -> bool:
    """Whether there is such an order."""
    return next(orders_that_lose(sessions, kind, way), None) is not None


@pytest.mark.parametrize("way", WAYS)
def test_in_no_order_is_a_wake_up_lost(sessions: Sessions, way: str) -> None:
    assert list(orders_that_lose(sessions, ByHand, way)) == []


@pytest.mark.parametrize("kind", [WithoutList, ListTooEarly])
@pytest.mark.parametrize("way", [way for way in WAYS if way != "by itself"])
def test_planted_without_a_list_or_with_an_early_one(
    sessions: Sessions, kind: type[ByHand], way: str
) -> None:
    assert loses(sessions, kind, way)


@pytest.mark.parametrize("way", WAYS)
def test_planted_without_a_second_read(sessions: Sessions, way: str) -> None:
    assert loses(sessions, WithoutSecondRead, way)


@pytest.mark.parametrize("way", ["repeatable read", "serializable"])
def test_planted_with_a_flag_in_a_table(sessions: Sessions, way: str) -> None:
    """Seen through a frozen snapshot: the list does not help, for it has not looked yet."""
    doorbell_by_hand.flags_for_doorbells(sessions.session())
    assert loses(sessions, ByFlag, way)


def test_planted_with_a_flag_and_no_list(sessions: Sessions) -> None:
    doorbell_by_hand.flags_for_doorbells(sessions.session())
    assert list(orders_that_lose(sessions, ByFlag, "read committed")) == []
    assert loses(sessions, ByFlagWithoutList, "read committed")


def test_planted_a_ring_that_locks_after_its_look(sessions: Sessions) -> None:
    """Held up between the two, it is in no list."""
    director, other = sessions.take(2)
    lock = "LOCK TABLE durable_notify.lock_rings IN ROW EXCLUSIVE MODE;"
    look = "PERFORM durable_notify._notify_waiters(topic, hint);"
    gate = "PERFORM pg_catalog.pg_advisory_xact_lock_shared(4711);"
    plant(director, "_ring", (lock, ""), (look, f"{look} {gate} {lock}"))
    with closing(ByHand(sessions.dsn, "g", ["t"])) as consumer:
        other.publish()
        (message,) = other.claim()
        director.run("SELECT pg_advisory_lock(4711)")
        query = "SELECT durable_notify.settle(%s, '{}', %s)"
        work = other.start(query, message.token, [message.id])
        sessions.wait_until_blocked(other, work)
        for step in consumer.STEPS:
            getattr(consumer, step)()
        director.run("SELECT pg_advisory_unlock(4711)")
        work.result()
        assert not consumer.wakes()
        director.run("UPDATE durable_notify.deferred SET due_at = clock_timestamp()")
        assert consumer.read(), "there was something"


# At random


class Lost(AssertionError):
    """A message is committed, no publisher runs, and a consumer sleeps."""


def rounds(
    sessions: Sessions,
    got: dict[str, set[int]],
    check: Step,
    bound: float = BOUND,
    seconds: float = SECONDS,
) -> None:
    """Play for some seconds; after each round every consumer must get all that is committed."""
    print(f"DURABLE_NOTIFY_SEED={FIRST_SEED}")
    sessions.session().run("SELECT durable_notify.set_notify_policy(%s, 'never')", NEVER)
    until, played = time.monotonic() + seconds, 0
    with closing(Rounds(sessions.dsn, FIRST_SEED, TOPICS)) as game:
        while time.monotonic() < until:
            game.play()
            played += 1
            all_have(game, got, check, bound)
            time.sleep(game.random.choice([0, 0, 0.002, 0.01, 0.05]))
        game.finish()
        all_have(game, got, check, bound)
        print(f"{played} rounds, {len(game.committed())} messages, {game.killed} backends killed")
        assert all(ids == game.committed() for ids in got.values())
        assert played > 10 * TIMES, "too little happened to say anything"


def all_have(game: Rounds, got: dict[str, set[int]], check: Step, bound: float) -> None:
    """Wait until every consumer has all that is committed, and no longer than the bound."""
    everything = game.committed()

    def has_all() -> bool:
        return all(everything <= ids for ids in got.values())

    try:
        eventually(has_all, bound)
    except AssertionError:
        check()
        missing = {name: sorted(everything - ids)[:20] for name, ids in got.items()}
        raise Lost(f"seed {FIRST_SEED}: not got {missing}") from None
    check()


def consume_by_hand(
    sessions: Sessions, kind: type[ByHand], bound: float = BOUND, seconds: float = SECONDS
) -> list[ByHand]:
    """Several publishers of all sorts, two consumers; these at the end."""
    consumers = [kind(sessions.dsn, group, [*TOPICS, NEVER]) for group in "gh"]
    threads = [threading.Thread(target=consumer.run) for consumer in consumers]

    def raise_what_failed() -> None:
        for consumer in consumers:
            if consumer.failure is not None:
                raise consumer.failure

    for thread in threads:
        thread.start()
    try:
        rounds(sessions, {c.group: c.got for c in consumers}, raise_what_failed, bound, seconds)
    finally:
        for consumer, thread in zip(consumers, threads, strict=True):
            consumer.stop()
            thread.join()
            consumer.close()
    raise_what_failed()
    return consumers


@pytest.mark.slow
def test_by_hand_at_random(sessions: Sessions) -> None:
    """Once asleep only a ring wakes them, or the end of who was under way."""
    for consumer in consume_by_hand(sessions, ByHand):
        counts = f"{consumer.sleeps} sleeps, {consumer.rings} rings, {consumer.ended} ended"
        print(f"{consumer.group}: {counts}")
        assert consumer.sleeps > 10 * TIMES
        assert consumer.rings > 5 * TIMES
        assert consumer.ended > 0


@pytest.mark.slow
def test_planted_at_random(sessions: Sessions) -> None:
    """It is caught within a second or two; by then it would long be a failure."""
    with pytest.raises(Lost):
        consume_by_hand(sessions, WithoutList, bound=0.5, seconds=40)


HUNT = """
    CREATE FUNCTION hunt(seconds float, OUT looks bigint, OUT missed bigint) LANGUAGE plpgsql AS $$
    DECLARE
        now_time timestamptz;
        found xid[];
        until timestamptz := clock_timestamp() + make_interval(secs => seconds);
    BEGIN
        looks := 0;
        missed := 0;
        WHILE clock_timestamp() < until LOOP
            now_time := clock_timestamp();
            found := durable_notify._open_writers('{durable_notify.outbox,durable_notify.lock_rings}');
            looks := looks + 1;
            -- Prepared before that look, and not committed after it.
            missed := missed + (
                SELECT count(*) FROM pg_prepared_xacts p
                 WHERE p.prepared < now_time AND p.database = current_database()
                   AND p.transaction <> ALL (found));
        END LOOP;
    END $$"""


def test_a_transaction_being_prepared_is_always_in_the_list(sessions: Sessions) -> None:
    """PostgreSQL moves the locks to a holder without a process, and a look may come in between."""
    stopping = threading.Event()
    publisher, watcher = sessions.take(2)
    watcher.run(HUNT)

    def publish() -> None:
        while not stopping.is_set():
            with publisher.transaction():
                publisher.publish()
                publisher.run("SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 20) AS n")
                publisher.run("PREPARE TRANSACTION 'hunted'")
            publisher.run("COMMIT PREPARED 'hunted'")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        ((looks, missed),) = watcher.run("SELECT * FROM hunt(%s)", SECONDS / 2)
    finally:
        stopping.set()
        thread.join()
    print(f"{looks} looks, {missed} missed")
    assert missed == 0


class AsyncRunner:
    """An `AsyncConsumer` in an event loop of its own."""

    def __init__(self, consumer: dn.AsyncConsumer, handler: Callable[[Any], None]) -> None:
        self._consumer, self._handler = consumer, handler
        self._loop = asyncio.new_event_loop()

    def run(self) -> None:
        with closing(self._loop):
            self._loop.run_until_complete(self._consumer.run(self._handler))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._consumer.stop)


@pytest.mark.slow
def test_consumers_at_random(sessions: Sessions) -> None:
    """The real ones, of both halves, without a poll; their listeners are killed, too."""
    got: dict[str, set[int]] = {group: set() for group in ("async", "sync", "patterns")}
    chance = random.Random(FIRST_SEED)
    options: dict[str, Any] = {"poll_interval": None}
    everything = [*TOPICS, NEVER]
    director = sessions.session()
    for topic in everything:  # a pattern stands for topics there are
        director.publish(topic=topic)
    listener = Listener(sessions, *TOPICS)
    patterns = dn.Consumer(sessions.dsn, group="patterns", topics=["*"], **options)
    sync = dn.Consumer(sessions.dsn, group="sync", topics=everything, **options)
    beside = dn.AsyncConsumer(sessions.dsn, group="async", topics=everything, **options)
    ordinary = AsyncRunner(beside, lambda message: got["async"].add(message.id))
    stops = [ordinary.stop, sync.stop, patterns.stop]
    runs: list[Step] = [
        ordinary.run,
        lambda: sync.run(lambda message: got["sync"].add(message.id)),
        lambda: patterns.run(lambda message: got["patterns"].add(message.id)),
    ]
    threads = [threading.Thread(target=run) for run in runs]
    rings = []

    def count_rings_and_kill_listeners() -> None:
        rings.extend(listener.heard())
        if chance.random() < 0.05:
            for pid in backends(director.connection, LISTENER):
                director.run("SELECT pg_terminate_backend(%s)", pid)

    with ExitStack() as ending:
        for thread, stop in zip(threads, stops, strict=True):
            thread.start()
            ending.callback(thread.join)
            ending.callback(stop)
        rounds(sessions, got, count_rings_and_kill_listeners)
    print(f"{len(rings)} rings")
    assert len(rings) > 10 * TIMES
