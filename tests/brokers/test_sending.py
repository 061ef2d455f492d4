"""Relays and a broker that does what the test says: what is sent when, and its outcome."""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import psycopg
import pytest

import durable_notify as dn
from durable_notify.brokers import broker as brokers
from durable_notify.brokers import nats, reports
from durable_notify.brokers import relay as relays
from durable_notify.brokers.broker import (
    BrokerMessage,
    Outcome,
    Rejected,
    Report,
    RetryLater,
    Sent,
    Unconfirmed,
    by_ordering_key,
)
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.routes import Routes
from durable_notify.errors import BrokerUnavailable, InvalidArgument
from durable_notify.payloads import NewMessage
from tests.support.api import with_group
from tests.support.broker_io import carrying
from tests.support.wait import wait_until


class Broker:
    """Answers each message as `judge` does, and records what it was sent."""

    fields: ClassVar = {"place": "{topic}"}

    def __init__(self, judge: Callable[[BrokerMessage], Awaitable[Outcome] | Outcome]) -> None:
        self._judge = judge
        self.took: list[str] = []
        self.down = False

    def check(self, field: str, template: str) -> None: ...
    async def connect(self, routes: Any) -> None: ...
    async def close(self) -> None: ...

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        if self.down:
            raise BrokerUnavailable("it is down")
        return await by_ordering_key(messages, self._begin, report)

    async def _begin(self, message: BrokerMessage) -> asyncio.Future[Outcome]:
        return asyncio.create_task(self._take(message))

    async def _take(self, message: BrokerMessage) -> Outcome:
        outcome = self._judge(message)
        if not isinstance(outcome, Sent | Rejected | RetryLater | Unconfirmed):
            outcome = await outcome
        if isinstance(outcome, Sent):
            self.took.append(message.body.decode())
        return outcome


def relay_to(broker: Broker, dsn: str, **options: Any) -> AsyncRelay:
    options = with_group({"group": "g", "topics": ["t"], **options})
    relay = AsyncRelay(dsn, broker_url="nats://h", **options)
    relay._broker, relay._routes = broker, Routes(broker.fields, {}, ["t"], broker.check)
    return relay


def publish(dsn: str, *messages: Any) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(connection, "t", messages)


def status(dsn: str) -> dn.models.TopicStatus:
    with psycopg.connect(dsn) as connection:
        (line,) = dn.Admin().status(connection)
        return line


async def test_the_next_of_a_key_waits(dsn: str) -> None:
    refusals = {"1": Unconfirmed("no answer"), "4": RetryLater("full")}

    def judge(message: BrokerMessage) -> Outcome:
        return refusals.pop(message.body.decode(), Sent())

    publish(dsn, *(NewMessage(n, key="a") for n in (1, 2)), NewMessage(3, key="b"))
    publish(dsn, *(NewMessage(n, key="c") for n in (4, 5)), NewMessage(6))
    broker = Broker(judge)
    await relay_to(broker, dsn, until_empty=True, retry=dn.RetryPolicy(base=0.01)).run()
    assert sorted(broker.took) == ["1", "2", "3", "4", "5", "6"]
    assert broker.took.index("1") < broker.took.index("2")
    assert broker.took.index("4") < broker.took.index("5")
    assert set(broker.took[:2]) == {"3", "6"}  # strangers do not wait


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_all_at_once_is_caught(later: bool) -> None:
    """The planted fault: all messages of an ordering key under way at once."""

    async def planted(messages: Sequence[BrokerMessage], begin: Any, _: Any) -> list[Outcome]:
        begun = [await begin(message) for message in messages]
        return [await one if isinstance(one, asyncio.Future) else one for one in begun]

    async def order_of(way: Any) -> list[str]:
        took: list[str] = []
        refusals = [Unconfirmed("")]

        async def send(message: Any) -> Outcome:
            if refusals and message.body == b"1":
                return refusals.pop()
            took.append(message.body.decode())
            return Sent()

        async def begin(message: Any) -> Outcome | asyncio.Future[Outcome]:
            return asyncio.create_task(send(message)) if later else await send(message)

        left = [broker_message(b"1", "lane"), broker_message(b"2", "lane")]
        while left:
            outcomes = await way(left, begin, lambda *_: None)
            left = [p for p, o in zip(left, outcomes, strict=True) if isinstance(o, Unconfirmed)]
        return took

    assert await order_of(by_ordering_key) == ["1", "2"]
    assert await order_of(planted) == ["2", "1"]


async def test_a_client_that_raises_leaves_nothing_under_way() -> None:
    never: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    async def begin(message: BrokerMessage) -> asyncio.Future[Outcome]:
        if message.body == b"1":
            return never
        raised: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(raised.set_exception, KeyError("odd"))
        return raised

    with pytest.raises(KeyError, match="odd"):
        await by_ordering_key([broker_message(b"1"), broker_message(b"2")], begin, print)
    assert never.cancelled()


async def test_confirmations_are_settled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker confirms a few at a time. Each settling costs the database, whatever its size."""
    monkeypatch.setattr(reports, "SETTLE_AFTER", 60.0)
    settled, report = reporting("a", "b", None)
    report(0, Sent())
    report(2, Sent())
    assert settled == []
    report(1, Rejected(""))
    assert settled == [(1, Rejected("")), (0, Sent()), (2, Sent())]


async def test_a_settling_waits_for_those_before_in_its_key() -> None:
    settled, report = reporting("a", "a", "b", None)
    report(1, Sent())
    report(2, Sent())
    report.settle()
    assert settled == [(2, Sent())]
    report(0, Sent())
    report.settle()  # at the end of a sending: the last is not confirmed
    assert settled == [(2, Sent()), (0, Sent()), (1, Sent())]


def reporting(*keys: str | None) -> tuple[list[tuple[int, Outcome]], reports.BatchReport]:
    settled: list[tuple[int, Outcome]] = []

    def settle(message: Any, outcome: Outcome) -> None:
        message.is_settled = True
        settled.append((message.index, outcome))

    def ack(messages: list[Any]) -> None:
        for message in messages:
            settle(message, Sent())

    left: Any = [
        (types.SimpleNamespace(index=index, is_settled=False), broker_message(b"", key))
        for index, key in enumerate(keys)
    ]
    return settled, reports.BatchReport(left, settle, ack)


def broker_message(body: bytes, ordering_key: object = None, **more: Any) -> BrokerMessage:
    fields: dict[str, Any] = {"id": "1-1", "topic": "t", "key": None, "headers": {}} | more
    return BrokerMessage(
        body=body, ordering_key=ordering_key, content_type="", route={},
        published_at=datetime(2026, 1, 1, tzinfo=UTC), **fields,
    )  # fmt: skip


async def test_what_is_not_confirmed_is_given_back(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_notify.brokers.relay.GRACE", 0.05)
    publish(dsn, NewMessage(1, key="a"), NewMessage(2, key="b"))
    under_way = asyncio.Event()

    async def judge(message: BrokerMessage) -> Outcome:
        if message.key == "b":
            under_way.set()
            await asyncio.Event().wait()  # never confirmed
        return Sent()

    relay = relay_to(Broker(judge), dsn)
    async with carrying(relay):
        await under_way.wait()
    with psycopg.connect(dsn) as connection:
        left = connection.execute("SELECT key, attempt FROM durable_notify.claim('g', '{t}')")
        rows = left.fetchall()
    assert ("b", 1) in rows  # and not a second attempt


async def test_a_broker_that_is_down_costs_no_attempt(dsn: str) -> None:
    publish(dsn, *range(5))
    broker = Broker(lambda _: Sent())
    broker.down = True
    relay = relay_to(broker, dsn, retry=dn.RetryPolicy(max_attempts=1))
    async with carrying(relay):
        await wait_until(lambda: status_or_none(dsn) == 5)
        broker.down = False
        await wait_until(lambda: len(broker.took) == 5)
    assert status(dsn).dead == 0


def status_or_none(dsn: str) -> int | None:
    with psycopg.connect(dsn) as connection:
        return next((line.leased for line in dn.Admin().status(connection)), None)


async def test_what_was_taken_over_is_not_sent_again(dsn: str) -> None:
    """While it waits for the broker, its lease may go to another relay."""
    publish(dsn, 1)
    sent: list[int] = []

    def judge(message: BrokerMessage) -> Outcome:
        sent.append(1)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE durable_notify.lease SET deadline = '-infinity'")
            connection.execute("SELECT durable_notify.claim('g', '{t}', lease => '1 hour')")
        for lease in relay._consumer._lease_manager._leases.values():
            lease.sure_at = float("-inf")  # it has slept
        return Unconfirmed("no answer")

    relay = relay_to(Broker(judge), dsn)
    async with carrying(relay):
        await wait_until(lambda: not relay._consumer._lease_manager._leases and sent)
    assert sent == [1]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "backoff", lambda *_: 0.01)
    monkeypatch.setattr(relays, "PASSED", 3)
    monkeypatch.setattr(relays, "ASIDE", 0.01)


async def test_what_is_not_known_waits(
    dsn: str, hasty: None, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown error for all of them: none is a dead letter, no attempt is counted."""
    publish(dsn, *(NewMessage(n, key=f"k{n}") for n in range(5)))
    tries: list[int] = []

    def judge(_: BrokerMessage) -> Outcome:
        tries.append(1)
        return Sent() if len(tries) > 200 else Unconfirmed("E4711 of next year")

    relay = relay_to(Broker(judge), dsn, retry=dn.RetryPolicy(max_attempts=1))
    async with carrying(relay):
        await wait_until(lambda: relay.sent == 5)
    assert relay.rejected == 0
    assert "E4711 of next year" in caplog.text


async def test_one_that_fails_while_others_pass(dsn: str, hasty: None) -> None:
    """It is retried with its group's back-off, and in the end is a dead letter, whole."""
    publish(dsn, NewMessage("poison", key="a"))

    def judge(message: BrokerMessage) -> Outcome:
        return Unconfirmed("an unknown reason") if b"poison" in message.body else Sent()

    relay = relay_to(
        Broker(judge), dsn, retry=dn.RetryPolicy(max_attempts=2, base=0.01), batch_size=10
    )
    number = itertools.count()
    async with carrying(relay):
        async with asyncio.timeout(30):
            while not await asyncio.to_thread(dead, dsn):
                await asyncio.to_thread(publish, dsn, NewMessage(next(number), key="b"))
    (letter,) = dead(dsn)
    assert letter.payload == "poison"
    assert "an unknown reason" in (letter.error or {})["message"] + letter.reason


def dead(dsn: str) -> list[dn.models.DeadLetter]:
    with psycopg.connect(dsn) as connection:
        if not any(line.group for line in dn.Admin().status(connection)):
            return []
        return list(dn.Admin().dead_letters(connection, "g"))


async def test_one_that_breaks_all(dsn: str, hasty: None, caplog: pytest.LogCaptureFixture) -> None:
    """What the client raises for one message fails the batch: it is found, and its text not said."""

    class Fragile(Broker):
        async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
            if any(b"poison" in message.body for message in messages):
                raise RuntimeError(f"cannot encode {messages[0].body!r}")
            return await super().send(messages, report)

    publish(dsn, 1, "poison", 3, NewMessage("poison too", key="k"), NewMessage(5, key="k"), 6)
    broker = Fragile(lambda _: Sent())
    caplog.set_level("DEBUG", "durable_notify")
    relay = relay_to(broker, dsn)
    async with carrying(relay):
        await wait_until(lambda: sorted(broker.took) == ["1", "3", "6"])
    assert "unexpected RuntimeError" in caplog.text
    assert "cannot encode b'" not in caplog.text


async def test_a_password_that_changes_meanwhile(dsn: str, hasty: None) -> None:
    """A password that was changed meanwhile: it waits, as for a broker that is down."""
    refusals = [InvalidArgument("RabbitMQ refuses user or password of the URL")] * 3

    class Changed(Broker):
        async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
            if refusals:
                raise refusals.pop()
            return await super().send(messages, report)

    publish(dsn, 1)
    broker = Changed(lambda _: Sent())
    async with carrying(relay_to(broker, dsn)):
        await wait_until(lambda: broker.took == ["1"])


async def test_one_confirmation_that_is_missing(
    dsn: str, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is confirmed is settled at once, and what is behind goes: while it runs, and stopped."""
    monkeypatch.setattr(relays, "GRACE", 0.05)
    monkeypatch.setattr(relays, "SILENCE", 0.01)
    publish(dsn, NewMessage("stuck", key="stuck"), *(NewMessage(n, key=f"k{n}") for n in range(5)))

    async def judge(message: BrokerMessage) -> Outcome:
        if message.key == "stuck":
            await asyncio.Event().wait()
        return Sent()

    relay = relay_to(Broker(judge), dsn)
    async with carrying(relay):
        await wait_until(lambda: relay.sent == 5)
        await asyncio.to_thread(publish, dsn, *(NewMessage(n, key="k") for n in range(3)))
        await asyncio.to_thread(publish, dsn, NewMessage("stuck", key="stuck"))
        await wait_until(lambda: relay.sent == 8)
    with psycopg.connect(dsn) as connection:
        left = connection.execute("SELECT payload, attempt FROM durable_notify.claim('g', '{t}')")
        assert left.fetchall() == [("stuck", 1)] * 2


async def test_a_silent_broker_is_reported(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client may try for minutes by itself."""
    monkeypatch.setattr(relays, "SILENCE", 0.01)
    monkeypatch.setattr(relays, "GRACE", 0.01)
    publish(dsn, 1)

    async def judge(_: BrokerMessage) -> Outcome:
        await asyncio.Event().wait()
        return Sent()

    async with carrying(relay_to(Broker(judge), dsn)):
        await wait_until(lambda: "of 1 messages the broker has not confirmed all" in caplog.text)


async def test_outcomes_told_in_any_order(dsn: str) -> None:
    """A client may know at once that one is too large, and only later that the one before is sent."""

    class Backwards(Broker):
        async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
            outcomes: list[Outcome] = [
                Rejected("too large") if b"large" in message.body else Sent()
                for message in messages
            ]
            for index in reversed(range(len(messages))):
                report(index, outcomes[index])
            return outcomes

    publish(dsn, *(NewMessage(what, key="k") for what in (1, "large", 3)))
    relay = relay_to(Backwards(lambda _: Sent()), dsn, until_empty=True)
    await relay.run()
    assert (relay.sent, relay.rejected) == (2, 1)
    assert [letter.payload for letter in dead(dsn)] == ["large"]
    assert [letter.attempt for letter in dead(dsn)] == [1]


DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("cloudevents", [False, True])
async def test_every_digit_however_deep(dsn: str, cloudevents: bool) -> None:
    """Of payloads and headers. A payload that Python cannot decode ends no relay."""
    headers = '{"n": 12345678901234567890.10, "deep": [1.10, {"a": 1e2}], "t": "1.10", "ce_n": 5}'
    with psycopg.connect(dsn) as connection:
        for payload in ("12345678901234567890.10", DEEP, '{"a": 1.10, "data": 2}', "null"):
            connection.execute(
                "SELECT durable_notify.publish('t', %s::jsonb, headers => %s)", [payload, headers]
            )
    messages: list[BrokerMessage] = []

    def judge(message: BrokerMessage) -> Outcome:
        messages.append(message)
        return Sent()

    await relay_to(Broker(judge), dsn, until_empty=True, cloudevents=cloudevents).run()
    bodies = [message.body.decode() for message in messages]
    assert len(bodies) == 4
    if cloudevents:
        assert bodies[0].endswith(',"data":12345678901234567890.10}')
        assert bodies[1].endswith(f',"data":{DEEP}}}')
        assert bodies[2].endswith(',"data":{"a": 1.10, "data": 2}}')
        assert '"n":5' in bodies[0]
        assert messages[0].headers["n"] == "12345678901234567890.10"
    else:
        assert bodies[0] == "12345678901234567890.10"
        assert bodies[1] == DEEP
        assert messages[0].headers == {
            "n": "12345678901234567890.10", "deep": '[1.10, {"a": 100}]', "t": "1.10", "ce_n": "5",
        }  # fmt: skip


async def test_what_cannot_be_packed_is_one_dead_letter(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = AsyncRelay._pack

    def failing(self: Any, message: Any) -> Any:
        if message.payload == '"poison"':
            raise RecursionError("maximum recursion depth exceeded: secret")
        return pack(self, message)

    monkeypatch.setattr(AsyncRelay, "_pack", failing)
    publish(dsn, 1, "poison", 3)
    broker = Broker(lambda _: Sent())
    await relay_to(broker, dsn, until_empty=True).run()
    assert broker.took == ["1", "3"]
    (letter,) = dead(dsn)
    assert (letter.payload, letter.reason) == ("poison", "it cannot be sent: RecursionError")


def test_a_publisher_gives_no_status() -> None:
    """Who reads would take the message for the server's own word, and drop it."""
    headers = nats._headers(broker_message(b"", headers={"Status": "503", "status": "x"}))
    assert {name.lower() for name in headers} & {"status"} == set()
    assert headers["x-Status"] == "503"


def test_what_clients_say_of_a_message_is_not_repeated() -> None:
    with pytest.raises(UnicodeEncodeError) as refused:
        "secret \ud800".encode()
    assert brokers.kind_of(refused.value) == "UnicodeEncodeError: surrogates not allowed"
    assert brokers.kind_of(ValueError("secret")) == "ValueError"
