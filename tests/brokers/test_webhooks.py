"""Webhooks to a real HTTP server: signed, in order of their keys, retried, paused."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import psycopg
import pytest
import standardwebhooks

import durable_notify as dn
from durable_notify.brokers import relay as relays
from durable_notify.brokers import webhooks
from durable_notify.brokers.broker import Outcome
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.webhooks import WebhookOptions
from durable_notify.errors import BrokerUnavailable, InvalidArgument
from durable_notify.payloads import NewMessage
from tests.support.api import with_group
from tests.support.broker_io import carrying
from tests.support.cli import fails, good, run, start
from tests.support.receiver import OTHER, SECRET, Answer, Receiver, Request, receiving
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("secret")

HERE = ("127.0.0.0/8",)


def relay_to(dsn: str, receiver: Receiver, **options: Any) -> AsyncRelay:
    options = {"topics": ["orders.*"], "group": "shop", "until_empty": True} | options
    webhook = options.pop("webhook", WebhookOptions(allow=HERE))
    return AsyncRelay(dsn, broker_url=receiver.url, webhook=webhook, **with_group(options))


def publish(dsn: str, *messages: Any, topic: str = "orders.eu") -> list[int]:
    with psycopg.connect(dsn) as connection:
        return dn.Publisher().publish_many(connection, topic, messages)


def dead(dsn: str) -> list[dn.models.DeadLetter]:
    with psycopg.connect(dsn) as connection:
        return list(dn.Admin().dead_letters(connection, "shop"))


async def test_what_arrives_is_signed(dsn: str, receiver: Receiver) -> None:
    message = NewMessage({"n": 1, "text": "ä"}, key="k", headers={"traceparent": "00-1-2-03"})
    publish(dsn, message, topic="orders.ä")
    relay = relay_to(dsn, receiver)
    await relay.run()
    (request,) = receiver.requests
    request.verify()
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        request.verify(OTHER)
    with psycopg.connect(dsn) as connection:
        stored = connection.execute("SELECT payload::text FROM durable_notify.outbox").fetchone()
    assert stored == (request.body.decode(),)  # not encoded again: every digit and space
    assert request.headers["content-type"] == "application/json"
    assert request.headers["durable-notify-topic"] == "orders.%C3%A4"
    assert request.headers["durable-notify-key"] == "k"
    assert request.headers["traceparent"] == "00-1-2-03"
    assert "." not in request.headers["webhook-id"]


async def test_a_body_encoded_again_is_caught(
    dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: what is signed is not what is sent."""
    answer = webhooks.Relay._answer

    async def planted(self: Any, body: bytes, headers: dict[str, str]) -> Any:
        return await answer(self, body.replace(b": ", b":"), headers)

    monkeypatch.setattr(webhooks.Relay, "_answer", planted)
    publish(dsn, {"n": 1})
    await relay_to(dsn, receiver).run()
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.requests[0].verify()


async def test_two_secrets_while_one_replaces_the_other(
    dsn: str, receiver: Receiver, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{OTHER}\n")
    monkeypatch.setenv("OLD", SECRET)
    publish(dsn, 1)
    options = WebhookOptions(secrets=[f"file:{file}", "env:OLD"], allow=HERE)
    await relay_to(dsn, receiver, webhook=options).run()
    receiver.requests[0].verify(SECRET)
    receiver.requests[0].verify(OTHER)


@pytest.mark.parametrize(
    "text", ["", "secret-words", "whsec_AAAA", "whsec_" + "A" * 200, SECRET.removeprefix("whsec_")]
)
def test_secrets_that_cannot_work(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_SECRET", text)
    with pytest.raises(InvalidArgument) as refused:
        webhooks.Relay("https://example.com/")
    assert not text or text not in str(refused.value)
    with pytest.raises(InvalidArgument, match="env:NAME or file:PATH"):
        webhooks.Relay("https://example.com/", WebhookOptions(secrets=[SECRET]))


def refuses_one(times: int) -> Callable[[Request], Answer]:
    """An endpoint that refuses message 1 that often."""
    left = [Answer(500)] * times

    def judge(request: Request) -> Answer:
        return left.pop() if request.body == b"1" and left else Answer(204)

    return judge


async def test_the_same_id_at_each_attempt_and_only_its_key_waits(dsn: str) -> None:
    publish(dsn, *(NewMessage(n, key="a") for n in (1, 2)), NewMessage(3, key="b"), NewMessage(4))
    with receiving(refuses_one(2)) as receiver:
        await relay_to(dsn, receiver, retry=dn.RetryPolicy(base=0.01)).run()
    assert [one.payload for one in receiver.requests if one.payload < 3] == [1, 1, 1, 2]
    assert {one.payload for one in receiver.requests[:3]} == {1, 3, 4}
    assert len({one.headers["webhook-id"] for one in receiver.requests if one.payload == 1}) == 1
    for request in receiver.requests:
        request.verify()


async def test_a_key_not_held_back_is_caught(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: all requests at once, whatever their keys."""

    async def planted(messages: Any, begin: Any, report: Any) -> list[Outcome]:
        begun = [await begin(message) for message in messages]
        outcomes = [await one if isinstance(one, asyncio.Future) else one for one in begun]
        for index, outcome in enumerate(outcomes):
            report(index, outcome)
        return outcomes

    monkeypatch.setattr(webhooks, "by_ordering_key", planted)
    publish(dsn, *(NewMessage(n, key="a") for n in (1, 2)))
    with receiving(refuses_one(1)) as receiver:
        await relay_to(dsn, receiver, retry=dn.RetryPolicy(base=0.01)).run()
    arrived = [one.payload for one in receiver.requests]
    assert 1 in arrived[arrived.index(2) + 1 :]  # reversed


async def test_what_fails_for_long_is_a_dead_letter(dsn: str) -> None:
    publish(dsn, 1)
    with receiving(lambda _: Answer(500, body=b"internal: 10.0.0.3")) as receiver:
        await relay_to(dsn, receiver, retry=dn.RetryPolicy(base=0.01, max_attempts=3)).run()
    assert len(receiver.requests) == 3
    (letter,) = dead(dsn)
    said = f"{letter.reason} {letter.error}"
    assert "127.0.0.1 answered 500" in said
    assert "10.0.0.3" not in said  # what an endpoint says is not shown to who reads dead letters


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
async def test_retry_after_holds_the_endpoint_back(dsn: str, dated: bool) -> None:
    times: list[float] = []

    def judge(_: Request) -> Answer:
        times.append(time.monotonic())
        if len(times) > 1:
            return Answer()
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Answer(429, {"retry-after": later if dated else "1"})

    publish(dsn, *range(5))
    with receiving(judge) as receiver:
        options = WebhookOptions(allow=HERE, concurrency=1)
        await relay_to(dsn, receiver, webhook=options, retry=dn.RetryPolicy(max_attempts=1)).run()
    assert len(receiver.requests) == 6
    assert min(times[1:]) - times[0] > 0.9
    assert dead(dsn) == []  # no attempt was counted


async def test_it_stops_while_the_endpoint_is_busy(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "GRACE", 0.05)
    publish(dsn, *range(5))
    with receiving(lambda _: Answer(503, {"retry-after": "3600"})) as receiver:
        options = WebhookOptions(allow=HERE, concurrency=2)
        relay = relay_to(dsn, receiver, webhook=options, until_empty=False)
        async with carrying(relay):
            await wait_until(lambda: receiver.requests)
        assert len(receiver.requests) <= 2
    with psycopg.connect(dsn) as connection:  # none waits for a lease to expire, none has failed
        left = connection.execute("SELECT attempt FROM durable_notify.claim('shop', '{orders.eu}')")
        assert left.fetchall() == [(1,)] * 5


def test_forms_of_retry_after() -> None:
    assert webhooks._seconds(None) is None
    assert webhooks._seconds("soon") is None
    assert webhooks._seconds("-1") is None
    assert webhooks._seconds("120") == 120
    assert webhooks._seconds("999999999") == webhooks.LONGEST
    assert webhooks._seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert webhooks._seconds("Wed, 21 Oct 9999 07:28:00 GMT") == webhooks.LONGEST


async def test_an_endpoint_that_is_gone_pauses_its_group(dsn: str) -> None:
    publish(dsn, *range(30))
    with receiving(lambda _: Answer(410)) as receiver:
        with pytest.raises(BrokerUnavailable, match="answered 410.*Group shop is paused"):
            await relay_to(dsn, receiver, webhook=WebhookOptions(allow=HERE, concurrency=2)).run()
        assert len(receiver.requests) <= 4
        with psycopg.connect(dsn) as connection:
            entry = dn.Admin().audit(connection, "shop")[0]
            assert entry.action == "pause"
            assert "127.0.0.1 answered 410" in (entry.application or "")
            dn.Admin().resume(connection, "shop")
        receiver.judge = lambda _: Answer()
        await relay_to(dsn, receiver).run()
    assert {one.payload for one in receiver.requests} == set(range(30))


async def test_an_endpoint_that_is_down_counts_no_attempt(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = relays.backoff
    monkeypatch.setattr(relays, "backoff", lambda n, _, most: backoff(n, 0.01, min(most, 0.1)))
    with receiving() as receiver:
        relay = relay_to(dsn, receiver, until_empty=False, retry=dn.RetryPolicy(max_attempts=1))
        publish(dsn, 1)
        running = asyncio.create_task(relay.run())
        await wait_until(lambda: relay.sent == 1)
    publish(dsn, *range(2, 40))
    await wait_until(lambda: relay._broker._unreachable is not None)  # type: ignore[attr-defined]
    with receiving(port=receiver.port) as restarted:
        await wait_until(lambda: relay.sent == 39)
        relay.stop()
        await running
    assert {one.payload for one in restarted.requests} == set(range(2, 40))
    assert dead(dsn) == []


async def test_a_new_group_retries_for_days(dsn: str, receiver: Receiver) -> None:
    """Only a new one, and only if nothing else is given: what an operator sets stays."""

    def policy() -> tuple[Any, ...]:
        with psycopg.connect(dsn) as connection:
            (group,) = dn.Admin().groups(connection)
            return group.retry_base, group.retry_factor, group.retry_max, group.max_attempts

    await relay_to(dsn, receiver).run()
    assert policy() == (5, 8, 36000, 12)
    delays = [min(36000, 5 * 8**n) for n in range(11)]
    assert 2 * 86400 < sum(delays) < 3 * 86400
    with psycopg.connect(dsn) as connection:
        dn.Admin().configure(connection, "shop", retry=dn.RetryPolicy(base=7))
    await relay_to(dsn, receiver).run()
    assert policy() == (7, 8, 36000, 12)
    await relay_to(dsn, receiver, retry=dn.RetryPolicy(max_attempts=3)).run()
    assert policy() == (7, 8, 36000, 3)


async def test_no_server_at_the_start(dsn: str) -> None:
    with receiving() as receiver:
        pass
    publish(dsn, 1)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1 cannot be reached"):
        await relay_to(dsn, receiver).run()


async def test_only_one_endpoint_gets_a_replay(dsn: str) -> None:
    """A group per endpoint: replayed by key, with a dry run; a new one starts in the past."""
    publish(dsn, *(NewMessage(n, key=f"k{n % 2}") for n in range(6)))
    with receiving() as shop, receiving() as partner:
        await relay_to(dsn, shop).run()
        await relay_to(dsn, partner, group="partner").run()
        chosen = ("--group", "shop", "--topic", "orders.eu", "--since", "1h", "--key", "k1")
        assert "3 messages" in good("replay-job", "start", *chosen, "--dry-run", dsn=dsn)
        good("replay-job", "start", *chosen, dsn=dsn)
        await relay_to(dsn, shop).run()
        await relay_to(dsn, partner, group="partner").run()
        assert [one.payload for one in shop.requests[6:]] == [1, 3, 5]
        assert len(partner.requests) == 6
        since = datetime.now(UTC) - timedelta(hours=1)
        await relay_to(dsn, partner, group="late", start=since).run()
        assert len(partner.requests) == 12
    ids = Counter(one.headers["webhook-id"] for one in shop.requests)
    assert sorted(ids.values()) == [1, 1, 1, 2, 2, 2]  # a receiver sees that it has them


async def test_bytes_that_are_no_text(dsn: str, receiver: Receiver) -> None:
    publish(dsn, b"\x00\xff")
    await relay_to(dsn, receiver).run()
    assert "use --cloudevents" in dead(dsn)[0].reason
    await relay_to(dsn, receiver, group="events", cloudevents=True).run()
    (request,) = receiver.requests
    request.verify()
    assert request.payload["data_base64"] == "AP8="
    assert request.headers["content-type"] == "application/cloudevents+json"


async def test_too_large(dsn: str, receiver: Receiver) -> None:
    publish(dsn, "x" * (webhooks.MAX_BODY + 1), NewMessage(1, headers={"n": "ä" * 3000}), 2)
    await relay_to(dsn, receiver).run()
    assert [one.payload for one in receiver.requests] == [2]
    assert ["its body has" in one.reason for one in dead(dsn)] == [True, False]
    assert "its headers have" in dead(dsn)[1].reason


def test_the_command(dsn: str, receiver: Receiver) -> None:
    publish(dsn, 1)
    to = ("--to", receiver.url, "--group", "shop", "--until-empty")
    fails(run("relay", "orders.*", *to, dsn=dsn), 2, "127.0.0.1", "is refused", "--allow")
    good("relay", "orders.*", *to, "--allow", "127.0.0.0/8", dsn=dsn)
    receiver.requests[0].verify()
    assert "accepted" in good("webhook", "test", receiver.url, "--allow", "127.0.0.0/8")
    request = receiver.requests[1]
    request.verify()
    assert request.payload["type"] == "durable_notify.test"
    receiver.judge = lambda _: Answer(404)
    fails(run("webhook", "test", receiver.url, "--allow", "127.0.0.0/8"), 1, "answered 404")


async def test_the_relay_is_killed(dsn: str) -> None:
    """What it had sent arrives once more, with the same id: the receiver sees that it has it."""
    asked, may_answer = threading.Event(), threading.Event()

    async def judge(_: Request) -> Answer:
        asked.set()
        await asyncio.to_thread(may_answer.wait, 20)
        return Answer()

    (number,) = publish(dsn, 1)
    with receiving(judge) as receiver:
        arguments = ("relay", "orders.*", "--to", receiver.url, "--group", "shop")
        process = start(*arguments, "--allow", "127.0.0.0/8", dsn=dsn)
        try:
            assert await asyncio.to_thread(asked.wait, 20)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        may_answer.set()
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE durable_notify.lease SET deadline = clock_timestamp()")
        await relay_to(dsn, receiver).run()
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-id"].startswith(f"{number}-")


async def test_as_many_at_once_as_were_said(dsn: str) -> None:
    """Three are under way before the first is answered, and never a fourth."""
    now, most = 0, 0
    full = asyncio.Event()

    async def judge(_: Request) -> Answer:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now >= 3:
            full.set()
        await full.wait()
        for _ in range(20):  # others that are on their way arrive
            await asyncio.sleep(0)
        now -= 1
        return Answer()

    publish(dsn, *range(30))
    with receiving(judge) as receiver:
        options = WebhookOptions(allow=HERE, concurrency=3)
        await relay_to(dsn, receiver, webhook=options).run()
    assert len(receiver.requests) == 30
    assert most == 3
