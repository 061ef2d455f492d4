"""The states in which a consumer can be idle: each prepares a database of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

from durable_notify._core.topic_set import FEW
from durable_notify.embedded import Server
from tests.support.api import Api
from tests.support.observe import barred
from tests.support.pgbouncer import pgbouncer
from tests.support.sessions import LONG_GONE, Session, Sessions

#: Statements a second. Heartbeats, which are switched off here, are 4 each 15 seconds at most.
MOST = 2.0


class Place(Sessions):
    """A state's database. The group g reads topic t."""

    def __init__(self, dsn: str, api: Api) -> None:
        super().__init__(dsn)
        self.api = api
        self.resources = ExitStack()
        self.ended = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        super().__enter__()
        self.one = self.session()
        self.one.subscribe()
        return self

    async def end(self) -> None:
        """End what handlers do."""
        self.ended.set()
        await asyncio.gather(*self.tasks)

    def open(self, isolation: str = "read committed") -> Session:
        """A session in a transaction that stays open."""
        session = self.session()
        session.begin(isolation)
        return session

    def configure(self, **options: Any) -> None:
        self.one.run("SELECT durable_notify.configure('g', %s)", Jsonb(options))

    def set(self, function: str, *params: Any) -> None:
        marks = ", ".join(["%s"] * len(params))
        self.one.run(f"SELECT durable_notify.{function}({marks})", *params)


async def unexpected(_: Place, message: Any) -> None:
    raise AssertionError(f"{message} is not for this consumer")


@dataclass
class State:
    prepare: Callable[[Place], Any]
    asleep: bool  # it waits for wake-ups alone
    options: dict[str, Any] = field(default_factory=dict)
    handler: Callable[[Place, Any], Any] = unexpected
    most: float = MOST

    @property
    def name(self) -> str:
        return self.prepare.__name__.replace("_", " ")

    @contextmanager
    def place(self, server: Server, api: Api) -> Iterator[Place]:
        """Create a database that is in this state."""
        name = self.name
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE migrated'.encode())
            with Place(server.dsn(name), api) as place, place.resources:
                self.prepare(place)
                yield place
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


STATES: list[State] = []


def state(
    *, asleep: bool = False, handler: Any = unexpected, most: float = MOST, **options: Any
) -> Callable[[Callable[[Place], Any]], Any]:
    def decorate(prepare: Callable[[Place], Any]) -> Any:
        STATES.append(State(prepare, asleep, options, handler, most))
        return prepare

    return decorate


# Nothing to read


@state(asleep=True)
def empty(place: Place) -> None:
    pass


@state(asleep=True)
def read_and_settled(place: Place) -> None:
    place.one.publish(key="k")
    place.one.ack(place.one.claim())


@state(asleep=True, topics=["no.such.*"])
def a_pattern_without_topics(place: Place) -> None:
    pass


@state(asleep=True, topics=[f"t{n}" for n in range(FEW + 4)])
def many_topics(place: Place) -> None:
    pass


@state(asleep=True)
def all_expired(place: Place) -> None:
    place.one.run(
        "SELECT durable_notify.publish('t', '1', ttl => '1 microsecond') FROM generate_series(1, 9)"
    )


@state(asleep=True)
def all_are_dead_letters(place: Place) -> None:
    place.configure(max_attempts=1)
    place.one.publish()
    place.one.settle(place.one.claim()[0].token, retried=[1])


@state(asleep=True)
def after_a_seek_to_the_end(place: Place) -> None:
    for _ in range(5):
        place.one.publish()
    place.one.claim(2)
    place.one.run("SELECT durable_notify.seek('g', 't', after_id => 5)")


@state(asleep=True)
def rings_always(place: Place) -> None:
    place.set("set_notify_policy", "t", "always")


# Limits and orders


@state(asleep=True)
def paused(place: Place) -> None:
    place.one.publish()
    place.set("pause", "g")


@state(asleep=True)
def stands_by(place: Place) -> None:
    place.configure(exclusive=True)
    place.one.claim()
    place.one.publish()


@state()
def active_once_an_open_transaction_has_ended(place: Place) -> None:
    place.configure(exclusive=True)
    place.one.publish()
    held = place.one.claim()
    place.open().ack(held)
    place.one.run("UPDATE durable_notify.active_consumer SET deadline = 'epoch'")


@state(asleep=True)
def out_of_tokens(place: Place) -> None:
    place.configure(rate_limit=0.001)
    place.one.publish()
    place.one.publish()
    assert len(place.one.claim()) == 1


@state(asleep=True)
def as_many_in_flight_as_may_be(place: Place) -> None:
    place.configure(max_in_flight=1)
    place.one.publish()
    place.one.publish()
    assert len(place.one.claim()) == 1


@state()
def in_flight_from_before_the_limit(place: Place) -> None:
    place.one.publish()
    place.one.publish()
    assert len(place.one.claim(1)) == 1
    place.configure(max_in_flight=1)


@state(asleep=True)
def a_key_is_in_flight(place: Place) -> None:
    place.one.publish(key="k")
    place.one.claim()
    place.one.publish(key="k")
    assert place.one.claim() == []


@state(asleep=True)
def a_key_waits_for_a_retry(place: Place) -> None:
    place.configure(retry_base=3600, retry_max=3600)
    place.one.publish(key="k")
    place.one.settle(place.one.claim()[0].token, retried=[])
    place.one.run("SELECT durable_notify.settle(token, retried => ids) FROM durable_notify.lease")
    place.one.publish(key="k")
    assert place.one.claim() == []


@state(asleep=True)
def as_many_parked_as_may_be(place: Place) -> None:
    place.configure(park_limit=2)
    place.one.publish(key="k")
    place.one.claim()
    for _ in range(5):
        place.one.publish(key="k")
    assert place.one.claim() == []


@state()
def a_lease_from_before_the_order_was_changed(place: Place) -> None:
    place.configure(order_by="none")
    place.one.publish(key="k")
    place.one.claim()
    place.one.publish(key="k")
    place.configure(order_by="key")


@state()
def strict_behind_a_publisher(place: Place) -> None:
    place.configure(order_by="strict")
    place.open().publish()
    place.one.publish()


@state(asleep=True)
def strict_behind_a_lease(place: Place) -> None:
    place.configure(order_by="strict")
    place.one.publish()
    place.one.claim()
    place.one.publish()


# Times


@state(asleep=True)
def all_are_for_later(place: Place) -> None:
    for delay in ("1 hour", "2 hours"):
        place.one.run("SELECT durable_notify.publish('t', '1', delay => %s)", delay)
    place.one.run("SELECT durable_notify.publish('t', '1', deliver_at => 'infinity')")


@state(asleep=True)
def all_retries_are_for_later(place: Place) -> None:
    place.configure(retry_base=3600, retry_max=3600)
    for _ in range(3):
        place.one.publish()
    place.one.claim()
    place.one.run("SELECT durable_notify.settle(token, retried => ids) FROM durable_notify.lease")


@state(asleep=True)
def a_dead_consumers_lease(place: Place) -> None:
    place.one.publish()
    place.one.claim()


@state()
def a_lease_in_an_open_transaction(place: Place) -> None:
    place.one.publish()
    held = place.one.claim()
    place.one.run(LONG_GONE)
    place.open().ack(held)


# Transactions that have not rung


@state()
def an_open_publisher(place: Place) -> None:
    place.open().publish()


@state()
def an_open_publisher_at_repeatable_read(place: Place) -> None:
    place.open("repeatable read").publish()


@state()
def a_prepared_publisher(place: Place) -> None:
    publisher = place.open()
    publisher.publish()
    publisher.run(f"PREPARE TRANSACTION '{publisher.connection.info.dbname}'")


@state()
def an_open_retry(place: Place) -> None:
    place.one.publish()
    held = place.one.claim()
    place.open().settle(held[0].token, retried=held)


# Replays


@state()
def a_slow_replay(place: Place) -> None:
    place.one.run("SELECT durable_notify.publish('t', '1') FROM generate_series(1, 9)")
    place.one.ack(place.one.claim())
    place.one.run("SELECT durable_notify.start_replay('g', 't', rate_limit => 0.01)")


@state()
def a_replay_that_waits_for_room(place: Place) -> None:
    place.one.run("SELECT durable_notify.publish('t', '1') FROM generate_series(1, 1200)")
    place.one.ack(place.one.claim(10_000))
    place.set("pause", "g")
    place.one.run("SELECT durable_notify.start_replay('g', 't')")


@state(asleep=True)
def a_replay_that_another_advances(place: Place) -> None:
    place.one.publish()
    place.one.ack(place.one.claim())
    place.one.run("SELECT durable_notify.start_replay('g', 't')")
    place.open().run("SELECT FROM durable_notify.replay_job FOR UPDATE")


# No wake-ups


@state()
def never_rings(place: Place) -> None:
    place.set("set_notify_policy", "t", "never")


@state()
def never_rings_and_waits_for_a_time(place: Place) -> None:
    place.set("set_notify_policy", "t", "never")
    place.one.run("SELECT durable_notify.publish('t', '1', delay => '1 hour')")


@state()
def the_doorbell_is_barred(place: Place) -> None:
    place.resources.enter_context(barred(place.session(), "t"))


@state(poll_interval=30.0)
def through_a_pooler(place: Place) -> None:
    place.dsn = place.resources.enter_context(pgbouncer(as_user("consumer", place.dsn)))


@state(poll_interval=30.0, topics=["t", "x.*"])
def a_pattern_through_a_pooler(place: Place) -> None:
    place.dsn = place.resources.enter_context(pgbouncer(as_user("consumer", place.dsn)))


# Its own messages


@state()
def waits_for_a_lease_until_empty(place: Place) -> None:
    place.one.publish()
    place.one.claim()


async def ack_in_an_open_transaction(place: Place, message: Any) -> None:
    acknowledged = asyncio.Event()

    async def transaction() -> None:
        async with place.api.connect(place.dsn) as connection:
            await message.ack(connection)
            acknowledged.set()
            await place.ended.wait()

    place.tasks.append(asyncio.create_task(transaction()))
    await acknowledged.wait()


@state(handler=ack_in_an_open_transaction)
def its_own_transaction_is_open(place: Place) -> None:
    place.one.publish()


@state(handler=ack_in_an_open_transaction)
def its_own_transactions_of_a_key_are_open(place: Place) -> None:
    place.one.publish(key="k")
    place.one.publish(key="k")


async def never_return(place: Place, _message: Any) -> None:
    await place.ended.wait()


@state(handler=never_return)
def its_hands_are_full(place: Place) -> None:
    for _ in range(3):
        place.one.publish()


@state(handler=never_return, prefetch=2)
def it_holds_as_much_as_it_may(place: Place) -> None:
    for _ in range(3):
        place.one.publish()


@state(asleep=True)
def the_active_one(place: Place) -> None:
    place.configure(exclusive=True)


# Wake-ups in vain, 200 a second. They are answered, but not each of them


def repeat(place: Place, query: str, *params: Any) -> None:
    """Run a statement over and over, beside the test."""
    session, ended = place.session(), threading.Event()

    def body() -> None:
        while not ended.wait(0.005):
            session.run(query, *params)

    thread = threading.Thread(target=body, name="repeat")
    thread.start()
    place.resources.callback(thread.join)
    place.resources.callback(ended.set)


@state(asleep=True)
def others_publish(place: Place) -> None:
    repeat(place, "SELECT durable_notify.publish('another', '1')")


@state(most=8, topics=["t", "x.*"])
def others_publish_beside_a_pattern(place: Place) -> None:
    repeat(place, "SELECT durable_notify.publish('x.not.mine', '1')")


@state(most=30)
def forged_wakeups(place: Place) -> None:
    repeat(place, "SELECT pg_notify(durable_notify.channel('t'), '1')")


@state(most=30)
def others_publish_while_it_is_paused(place: Place) -> None:
    place.set("pause", "g")
    repeat(place, "SELECT durable_notify.publish('t', '1')")


@state(most=30)
def others_publish_while_it_stands_by(place: Place) -> None:
    stands_by(place)
    repeat(place, "SELECT durable_notify.publish('t', '1')")


def as_user(user: str, dsn: str) -> str:
    return make_conninfo(dsn, user=user)
