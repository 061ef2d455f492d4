"""Publishers of all sorts, and consumers that keep the doorbell's protocol by hand.

The protocol, for a session with a LISTEN of its own: read; if there is nothing, arm the doorbells,
record who may have passed them before, and read again; if there is nothing, sleep until one rings,
one of those noted has ended.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import psycopg
from psycopg import errors

from tests.support.observe import still_running, unannounced
from tests.support.sessions import Session

ISOLATION = ["read committed", "read committed", "repeatable read", "serializable"]
NEVER = "never"
"""The topic that never rings."""
GONE = (psycopg.OperationalError, psycopg.InterfaceError)


class Rounds:
    """Publishers that work in rounds, each with a thread; between two rounds none runs."""

    def __init__(self, dsn: str, seed: object, topics: list[str]) -> None:
        self.random = random.Random(f"{seed} rounds")
        self._director = Session(dsn)
        self.publishers = [Publisher(dsn, f"{seed} publisher {n}") for n in range(4)]
        self._topics = topics
        self.killed = 0

    def play(self) -> None:
        """One round, in which backends are killed at random; what is prepared may outlast it."""
        topics = self.random.sample(self._topics, self.random.randint(1, len(self._topics)))
        if self.random.random() < 0.1:
            topics.append(NEVER)
        threads = [
            threading.Thread(target=publisher.work, args=(topics, self.random.randint(1, 4)))
            for publisher in self.publishers
        ]
        for thread in threads:
            thread.start()
        if self.random.random() < 0.2:
            time.sleep(self.random.random() * 0.05)
            self.kill(self.random.choice(self.publishers).pid)
        for thread in threads:
            thread.join()
        for publisher in self.publishers:
            if publisher.failure is not None:
                raise publisher.failure

    def kill(self, pid: int) -> None:
        """End a backend, whatever it does."""
        self.killed += bool(self._director.value("SELECT pg_terminate_backend(%s)", pid))

    def committed(self) -> set[int]:
        """What has been published, by the database's own account."""
        return set(self._director.column("SELECT id FROM durable_notify.outbox"))

    def finish(self) -> None:
        """Let nothing be prepared any more."""
        for publisher in self.publishers:
            publisher.resolve()

    def close(self) -> None:
        for session in [self._director, *(p.session for p in self.publishers)]:
            session.close()


class Publisher:
    """Publishes in transactions of all sorts; what becomes of them the database knows."""

    def __init__(self, dsn: str, seed: str) -> None:
        self.random = random.Random(seed)
        self._dsn = dsn
        self.session = Session(dsn)
        self._prepared: str | None = None
        self._number = 0
        self.refused = 0
        self.failure: BaseException | None = None

    @property
    def pid(self) -> int:
        return self.session.pid

    def work(self, topics: list[str], transactions: int) -> None:
        """Some transactions, one after the other."""
        try:
            for _ in range(transactions):
                try:
                    self._transaction(topics)
                except GONE:
                    self.session.close()
                    self.session = Session(self._dsn)
                time.sleep(self.random.choice([0, 0, 0, 0.001, 0.005, 0.02]))
        except BaseException as error:
            self.failure = error

    def _transaction(self, topics: list[str]) -> None:
        chance = self.random
        if self._prepared is not None and chance.random() < 0.5:
            self.resolve()
        if chance.random() < 0.2:
            self.session.publish(topic=chance.choice(topics))
            return
        try:
            self.session.begin(chance.choice(ISOLATION))
            for _ in range(chance.choice([1, 1, 2, 4])):
                self._publish(chance.choice(topics))
                self._pause()
            self._end()
        except errors.FeatureNotSupported:  # it has rung, and cannot be prepared any more
            self.refused += 1
            self.session.rollback()

    def _publish(self, topic: str) -> None:
        way = self.random.random()
        if way < 0.5:
            self.session.publish(topic=topic)
        elif way < 0.75:
            query = "SELECT durable_notify.publish_many(%s, array_fill('1'::jsonb, ARRAY[%s]))"
            self.session.run(query, topic, self.random.choice([2, 50]))
        else:
            self.session.run("SAVEPOINT s")
            self.session.publish(topic=topic)
            self._pause()
            self.session.run(self.random.choice(["RELEASE s", "ROLLBACK TO s"]))

    def _pause(self) -> None:
        time.sleep(self.random.choice([0, 0, 0, 0.001, 0.01, 0.03]))

    def _end(self) -> None:
        way = self.random.random()
        if way < 0.2:
            self.session.rollback()
        elif way < 0.35 and self._prepared is None:
            self._number += 1
            name = f"{self.random.getrandbits(40)} {self._number}"
            self.session.run(f"PREPARE TRANSACTION '{name}'")
            self._prepared = name
        else:
            self.session.commit()

    def resolve(self) -> None:
        """End what is prepared."""
        name, self._prepared = self._prepared, None
        if name is not None:
            way = self.random.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            with suppress(*GONE):
                self.session.run(f"{way} PREPARED '{name}'")
                return
            self.session.close()
            self.session = Session(self._dsn)
            with suppress(errors.UndefinedObject):  # it was done, and the answer was lost
                self.session.run(f"{way} PREPARED '{name}'")


class ByHand:
    """A consumer that keeps the protocol; its steps can be taken one by one, or by a thread."""

    #: What comes after a read that has found nothing; then it sleeps.
    STEPS: tuple[str, ...] = ("arm", "note", "read")

    def __init__(self, dsn: str, group: str, topics: Iterable[str]) -> None:
        self.group = group
        self.listening, self.reader = Session(dsn), Session(dsn)
        self.turn_to(topics)
        self.got: set[int] = set()
        self.noted: set[int] = set()
        self.unarmed: list[str] = []
        self._armed: list[str] = []
        self.sleeps = self.rings = self.ended = 0
        self.failure: BaseException | None = None
        self._stopping = threading.Event()

    def turn_to(self, topics: Iterable[str]) -> None:
        """Consume topics, and no others, from here on."""
        self.topics = list(topics)
        self.reader.run("SELECT durable_notify.subscribe(%s, %s)", self.group, self.topics)
        self.listening.run("UNLISTEN *")
        for topic in self.topics:
            self.listening.run(f'LISTEN "durable_notify:{topic}"')

    def read(self, topics: list[str] | None = None) -> bool:
        """Claim and settle all there is; whether there was something."""
        query = "SELECT token, id FROM durable_notify.claim(%s, %s, 200, '1 hour', 'by hand')"
        found = False
        while rows := self.reader.run(query, self.group, topics or self.topics):
            leases: dict[int, list[int]] = {}
            for token, message_id in rows:
                leases.setdefault(token, []).append(message_id)
            for token, ids in leases.items():
                self.reader.settle(token, ids)
                assert self.got.isdisjoint(ids), "it came twice"
                self.got.update(ids)
            found = True
        return found

    def arm(self) -> None:
        """Have publishers ring from here on."""
        found = self.listening.value("SELECT durable_notify._arm_topics(%s)", self.topics)
        self.unarmed = found["barred"] + found["silent"]
        self._armed = [topic for topic in self.topics if topic not in self.unarmed]

    def note(self) -> None:
        """List the publishers that may have looked at a doorbell before."""
        self.noted = unannounced(self.listening)

    def disarm(self) -> None:
        self.listening.run(
            "SELECT durable_notify._disarm_topics(%s)", self._armed
        )  # what _arm_topics() armed
        self._armed, self.noted = [], set()

    def rung(self, seconds: float = 0.0) -> bool:
        """Whether a doorbell rings before long."""
        self.listening.run("SELECT")  # brings what has been notified by now
        rung = list(self.listening.connection.notifies(timeout=seconds, stop_after=1))
        self.rings += bool(rung)
        return bool(rung)

    def one_has_ended(self) -> bool:
        """Whether a listed publisher has ended."""
        left = still_running(self.listening, self.noted) if self.noted else set()
        ended = left != self.noted
        self.noted = left
        self.ended += ended
        return ended

    def wakes(self) -> bool:
        """Whether it has reason to read, now that all is over."""
        return self.rung() or self.one_has_ended()

    def run(self) -> None:
        """Consume until told to stop. Once asleep only the protocol wakes it."""
        try:
            while not self._stopping.is_set():
                if not self.read() and not self._finds_something():
                    self._sleep()
                self.disarm()
        except BaseException as error:
            self.failure = error

    def _finds_something(self) -> bool:
        found = [getattr(self, step)() is True for step in self.STEPS]
        return any(found)

    def _sleep(self) -> None:
        self.sleeps += 1
        pause = 0.001
        while not self._stopping.is_set():
            if self.rung(pause if self.noted else 0.05):
                return
            pause = min(0.02, pause * 2)
            if self.one_has_ended() and self.read():
                return
            if self.unarmed and self.read(self.unarmed):
                return

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self.listening.close()
        self.reader.close()


class WithoutList(ByHand):
    """Ignores the publishers that are under way."""

    STEPS = ("arm", "read")


class WithoutSecondRead(ByHand):
    """Has read before it armed, and does not read again."""

    STEPS = ("arm", "note")


class ListTooEarly(ByHand):
    """Lists the publishers under way, and arms after that."""

    STEPS = ("note", "arm", "read")


class ByFlag(ByHand):
    """Arms by a row in a table, which publishers look at; see `flags_for_doorbells`."""

    def arm(self) -> None:
        self.listening.run("INSERT INTO flag SELECT unnest(%s::text[])", self.topics)

    def disarm(self) -> None:
        self.listening.run("DELETE FROM flag WHERE topic = ANY (%s)", self.topics)


class ByFlagWithoutList(ByFlag):
    """By a row in a table, and ignores the publishers under way."""

    STEPS = ("arm", "read")


def flags_for_doorbells(session: Session) -> None:
    """Have publishers look at a table instead of a lock."""
    session.run("CREATE TABLE flag (topic text)")
    looks = {
        "_no_waiter": "SELECT NOT EXISTS (SELECT FROM public.flag f WHERE f.topic = $1)",
        "_has_waiter": "SELECT EXISTS (SELECT FROM public.flag f WHERE f.topic = $1)",
    }
    for name, look in looks.items():
        session.run(
            f"CREATE OR REPLACE FUNCTION durable_notify.{name}(topic text) RETURNS boolean"
            f" LANGUAGE sql VOLATILE AS $function$ {look} $function$"
        )


Step = Callable[[], object]


def interleavings(one: list[Step], other: list[Step]) -> Iterator[list[Step]]:
    """Every order in which the steps of two can be taken."""
    if not one or not other:
        yield [*one, *other]
        return
    for rest in interleavings(one[1:], other):
        yield [one[0], *rest]
    for rest in interleavings(one, other[1:]):
        yield [other[0], *rest]
