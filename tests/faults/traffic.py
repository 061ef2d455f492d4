"""Publishers and consumers that do everything a user might, one random step at a time.

Driven by one thread that picks who goes next, a seed gives the same schedule at every run; driven
by a thread each, the same decisions.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from psycopg import errors

from tests.faults.history import Delivery, History, Sent, Settled
from tests.support.injection import Plant
from tests.support.sessions import Message, Session, Sessions

ISOLATION = ["read committed", "read committed", "repeatable read", "serializable"]
KEYS = ["a", "b", "c"]
GROUPS = ["g", "h"]
PREPARATIONS = """
    CREATE TABLE counter (key text PRIMARY KEY, n integer NOT NULL);
    INSERT INTO counter SELECT unnest('{a,b,c}'::text[]), 0;
    -- NOTIFY refuses PREPARE TRANSACTION; no session listens here.
    SELECT durable_notify.set_notify_policy('t', 'never')"""
# Leases without a holder: their consumer is gone, or two have settled a part each at once.
END_ALL_LEASES = """
    WITH beats AS (DELETE FROM durable_notify.lease_deadline)
    UPDATE durable_notify.lease SET deadline = 'epoch'"""
# What a publisher may meet that is its own business: it rolls back.
CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected)

PLAIN = """
    INSERT INTO durable_notify.outbox (topic, key, payload)
    SELECT 't', %s, to_jsonb(n) FROM unnest(%s::int[]) AS n RETURNING id"""
MANY = """
    SELECT durable_notify.publish_many(
        't', ARRAY(SELECT to_jsonb(n) FROM unnest(%(n)s::int[]) AS n),
        array_fill(%(key)s::text, ARRAY[cardinality(%(n)s::int[])]))"""


class Publisher:
    """Publishes in transactions of all sorts and notes what has committed.

    `waits`: wait for a key that another session has locked, rather than skip it.
    """

    def __init__(
        self, session: Session, seed: str, history: History, *, waits: bool = False
    ) -> None:
        self.session = session
        self.name = f"p{session.pid}"
        self.random = random.Random(seed)
        self.history = history
        self.waits = waits
        self.is_open = False
        self.key: str | None = None
        self.pending: list[Sent] = []
        self.savepoints: list[int] = []
        self.prepared: list[Sent] | None = None

    def step(self, action: Callable[[], None] | None = None) -> None:
        """Take one step, by chance or the one given; a conflict ends the transaction."""
        try:
            (action or self._choose())()
        except CONFLICTS:
            self.session.rollback()
            self._closed()

    def finish(self) -> None:
        """End whatever is open."""
        if self.is_open:
            self.end()
        if self.prepared is not None:
            self._resolve()

    def _choose(self) -> Callable[[], None]:
        if not self.is_open:
            choices = {self.begin: 6, self.publish: 2}
        else:
            choices = {self.publish: 8, self._publish_with_key: 5, self.end: 4, self._savepoint: 2}
            if self.savepoints:
                choices |= {self._back_to_savepoint: 2}
            if self.prepared is None:
                choices |= {self._prepare: 1}
        if self.prepared is not None:
            choices |= {self._resolve: 3}
        return self.random.choices(list(choices), list(choices.values()))[0]

    def begin(self) -> None:
        self.session.begin(self.random.choice(ISOLATION))
        self.is_open = True
        if self.random.random() < 0.5:
            self.session.draw_xid()

    def publish(self) -> None:
        self._insert(None, [0] * self.random.choice([1, 1, 1, 2, 5]))

    def _publish_with_key(self) -> None:
        # One key a transaction: two would deadlock.
        key = self.key or self.random.choice(KEYS)
        if self.waits and self.prepared is not None:
            return  # what is prepared may hold the key, and no server detects that deadlock
        wait = "" if self.waits else "SKIP LOCKED"
        if not self.session.run(f"SELECT FROM counter WHERE key = %s FOR UPDATE {wait}", key):
            return
        self.key = key
        count = self.random.choice([1, 1, 3])
        query = "UPDATE counter SET n = n + %s WHERE key = %s RETURNING n"
        last = self.session.value(query, count, key)
        self._insert(key, list(range(last - count + 1, last + 1)))

    def _insert(self, key: str | None, numbers: list[int]) -> None:
        form = self.random.randrange(3)
        if form == 0:
            drawn = [self.session.publish(n, key=key) for n in numbers]
        elif form == 1:
            drawn = self.session.column(PLAIN, key, numbers)
        else:
            cursor = self.session.connection.execute(MANY, {"key": key, "n": numbers})
            drawn = [message_id for (message_id,) in cursor]
        sent = [Sent(i, key, n) for i, n in zip(drawn, numbers, strict=True)]
        (self.pending if self.is_open else self.history.sent).extend(sent)

    def _savepoint(self) -> None:
        self.session.run(f"SAVEPOINT s{len(self.savepoints)}")
        self.savepoints.append(len(self.pending))

    def _back_to_savepoint(self) -> None:
        kept = self.savepoints.pop()
        name = f"s{len(self.savepoints)}"
        if self.random.random() < 0.5:
            self.session.run(f"ROLLBACK TO {name}")
            del self.pending[kept:]
        self.session.run(f"RELEASE {name}")

    def _prepare(self) -> None:
        self.session.run(f"PREPARE TRANSACTION '{self.name}'")
        self.prepared = self.pending
        self._closed()

    def _resolve(self) -> None:
        if self.is_open:
            return  # not possible inside a transaction
        assert self.prepared is not None
        if self.random.random() < 0.7:
            self.session.run(f"COMMIT PREPARED '{self.name}'")
            self.history.sent.extend(self.prepared)
        else:
            self.session.run(f"ROLLBACK PREPARED '{self.name}'")
        self.prepared = None

    def end(self) -> None:
        if self.random.random() < 0.75:
            self.session.commit()
            self.history.sent.extend(self.pending)
        else:
            self.session.rollback()
        self._closed()

    def _closed(self) -> None:
        self.is_open = False
        self.key = None
        self.pending = []
        self.savepoints = []


class Consumer:
    """Claims and settles, in all ways; with `lapses` it also fails, releases and is too late."""

    def __init__(
        self, session: Session, seed: str, history: History, group: str, *, lapses: bool = False
    ) -> None:
        self.session = session
        self.random = random.Random(seed)
        self.history = history
        self.group = group
        self.lapses = lapses
        self.held: dict[int, list[Message]] = {}

    def step(self) -> None:
        """Take one step."""
        choices: dict[Callable[[], None], int] = {self.claim: 5}
        if self.held:
            choices |= {self._settle: 5, self._extend: 1}
            if self.lapses:
                choices |= {self._retry: 1, self._expire: 1, self._release: 1}
        self.random.choices(list(choices), list(choices.values()))[0]()

    def claim(self) -> None:
        """Claim a batch of a random size."""
        most = self.random.choice([1, 3, 20, 100, 100])
        batch = self.session.claim(most, self.group)
        assert len(batch) <= most
        for index, message in enumerate(batch):
            delivery = Delivery(self.group, message.token, index, message.id, message.attempt)
            self.history.deliveries.append(delivery)
            self.held.setdefault(message.token, []).append(message)

    def finish(self) -> None:
        """Acknowledge all that is held."""
        while self.held:
            for token in list(self.held):
                self._settle_these(token, self.held[token])

    def drain(self) -> None:
        """Claim and acknowledge until nothing is left, while no other consumer runs."""
        while True:
            self.finish()
            self.session.run(END_ALL_LEASES)
            self.claim()
            if not self.held:
                return

    def _pick(self) -> tuple[int, list[Message]]:
        token = self.random.choice(list(self.held))
        messages = self.held[token]
        if self.random.random() < 0.5:
            return token, messages
        return token, self.random.sample(messages, self.random.randint(1, len(messages)))

    def _settle(self) -> None:
        self._settle_these(*self._pick())

    def _retry(self) -> None:
        token, messages = self._pick()
        self._settle_these(token, messages, "retried")

    def _settle_these(self, token: int, messages: list[Message], how: str = "acked") -> None:
        """Settle, sometimes in a transaction of the caller's, which is sometimes rolled back."""
        kept = True
        try:
            if self.random.random() < 0.5:
                self.session.settle(token, **{how: messages})
            else:
                self.session.begin(self.random.choice(ISOLATION))
                self.session.settle(token, **{how: messages})
                kept = self.random.random() < 0.8
                self.session.run("COMMIT" if kept else "ROLLBACK")
        except errors.DatabaseError as error:
            self.session.rollback()
            if isinstance(error, errors.SerializationFailure):
                return  # above READ COMMITTED this may always happen: try again later
            if error.sqlstate != "DN001" or not self.lapses:
                raise
            del self.held[token]  # superseded
            return
        if not kept:
            return
        if how == "acked":
            self.history.settled += [Settled(self.group, token, m.id) for m in messages]
        self.held[token] = [m for m in self.held[token] if m not in messages]
        if not self.held[token]:
            del self.held[token]

    def _extend(self) -> None:
        tokens = self.session.column("SELECT durable_notify.extend(%s, '1 hour')", list(self.held))
        assert self.lapses or set(tokens) == set(self.held)

    def _expire(self) -> None:
        """Die, as far as the database can tell, but settle all the same later."""
        token = self.random.choice(list(self.held))
        self.session.run("DELETE FROM durable_notify.lease_deadline WHERE token = %s", token)
        self.session.run(
            "UPDATE durable_notify.lease SET deadline = 'epoch' WHERE token = %s", token
        )

    def _release(self) -> None:
        token = self.random.choice(list(self.held))
        # Counted, or the checker would take it for a first attempt.
        if not self.session.column("SELECT durable_notify.release(%s, true)", [token]):
            del self.held[token]


def interleaved(
    sessions: Sessions,
    seed: object,
    steps: int,
    *,
    lapses: bool = False,
    plants: Iterable[Plant] = (),
) -> History:
    """One thread picks who goes next: a seed gives the same schedule at every run."""
    publishers, consumers, history = _cast(sessions, seed, lapses, plants, waits=False)
    choice = random.Random(f"{seed} order")
    workers: list[Publisher | Consumer] = [*publishers * 3, *consumers]
    for _ in range(steps):
        if choice.random() < 0.1:
            _meet(*choice.sample(publishers, 2), choice.choice(consumers))
        else:
            choice.choice(workers).step()
    return _finish(publishers, consumers, history)


def _meet(older: Publisher, younger: Publisher, consumer: Consumer) -> None:
    """Bring about at once what by chance alone is rare: the older one has the younger message."""
    if older.is_open and not younger.is_open:
        younger.step(younger.begin)
        younger.step(younger.publish)
        older.step(older.publish)
        older.step(older.end)
        consumer.claim()


def concurrent(sessions: Sessions, seed: object, steps: int, *, lapses: bool = False) -> History:
    """A thread each; publishers take that many steps, consumers continue until they are done."""
    publishers, consumers, history = _cast(sessions, seed, lapses, (), waits=True)
    done = threading.Event()

    def publish(publisher: Publisher) -> None:
        for _ in range(steps):
            publisher.step()
        publisher.finish()  # another session may be waiting for what it has locked

    def consume(consumer: Consumer) -> None:
        while not done.is_set():
            consumer.step()

    with ThreadPoolExecutor(len(publishers) + len(consumers)) as threads:
        consuming = [threads.submit(consume, consumer) for consumer in consumers]
        try:
            for publishing in [threads.submit(publish, publisher) for publisher in publishers]:
                publishing.result()
        finally:
            done.set()
        for work in consuming:
            work.result()
    return _finish(publishers, consumers, history)


def _cast(
    sessions: Sessions, seed: object, lapses: bool, plants: Iterable[Plant], *, waits: bool
) -> tuple[list[Publisher], list[Consumer], History]:
    director = sessions.session()
    director.run(PREPARATIONS)
    for group in GROUPS:
        director.subscribe(group)
    director.run("UPDATE durable_notify.consumer_group SET max_attempts = 1000")
    for plant in plants:
        plant(director)
    history = History()
    publishers = [
        Publisher(session, f"{seed} publisher {n}", history, waits=waits)
        for n, session in enumerate(sessions.take(5))
    ]
    consumers = [
        Consumer(
            sessions.session(), f"{seed} consumer {n} of {group}", history, group, lapses=lapses
        )
        for group in GROUPS
        for n in range(2)
    ]
    return publishers, consumers, history


def _finish(publishers: list[Publisher], consumers: list[Consumer], history: History) -> History:
    for publisher in publishers:
        publisher.finish()
    for consumer in consumers:
        consumer.finish()
    for consumer in consumers:
        consumer.drain()
    assert len(history.sent) > 20, "too little happened to say anything"
    return history
