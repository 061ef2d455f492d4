"""What the pages of the brokers say of each error is what the code makes of it."""

from __future__ import annotations

import re

import pytest

from durable_notify.brokers.broker import Gone, Outcome, Rejected, RetryLater, Sent, Unconfirmed
from tests.support.postgres import CHECKOUT

DOCS = CHECKOUT / "docs"
VERDICTS = {"dead letter": Rejected, "the relay waits": Unconfirmed, "redelivered": RetryLater}


def rows(page: str) -> dict[str, str]:
    """By code, what happens to a message, according to the page of a broker."""
    text = (DOCS / f"relay-{page}.md").read_text()
    table = text[text.index("reports | what happens") :].split("\n\n")[0].splitlines()[2:]
    found = {}
    for line in table:
        codes, verdict = line.strip("| ").split(" | ")
        if "at the start" not in codes:
            found.update(
                dict.fromkeys(re.findall(r"`([A-Z_]{3,}|\d{3,5}|_[A-Z_]+)\b", codes), verdict)
            )
    return found


def verdict_of(words: str) -> type[Outcome]:
    return next(kind for start, kind in VERDICTS.items() if words.startswith(start))  # type: ignore[return-value]


def test_the_page_of_redis() -> None:
    import redis.exceptions
    from redis._parsers.base import BaseParser

    from durable_notify.brokers import redis as module

    table = rows("redis")
    assert set(module.FINAL) | {"BUSY", "NOREPLICAS", "MISCONF", "ERR", "EXECABORT"} <= set(table)
    relay = module.Relay("redis://h")
    for code, words in table.items():
        error = BaseParser.parse_error(f"{code} 1 h:1")
        assert isinstance(error, redis.exceptions.RedisError)
        if isinstance(error, redis.exceptions.ConnectionError):
            assert words.startswith("the relay waits"), code
            continue
        outcome = relay._of_error(error)
        assert isinstance(outcome, verdict_of(words)), code
        assert outcome.reason == f"Redis says: {code} 1 h:1"


def test_the_page_of_rabbitmq() -> None:
    from aiormq import channel
    from pamqp import commands

    from durable_notify.brokers import rabbitmq
    from tests.brokers.test_sending import broker_message

    table = rows("rabbitmq")
    assert {str(code) for code in (*rabbitmq.FINAL, *rabbitmq.FORBIDDEN, 312)} <= set(table)
    relay = rabbitmq.Relay("amqp://h")
    message = broker_message(b"")
    message.route.update({"exchange": "e", "routing_key": "r"})  # type: ignore[attr-defined]
    for code, words in table.items():
        if not code.isdigit() or code == "312" or int(code) in (320, 501, 541):
            continue
        error = channel.exception_by_code(commands.Channel.Close(int(code), "words", 0, 0))
        outcome = relay._outcome_of(error, message, alone=True)
        assert isinstance(outcome, verdict_of(words)), code


def test_the_page_of_nats() -> None:
    from nats.js import errors

    from durable_notify.brokers import nats

    table = rows("nats")
    assert {str(code) for code in (*nats.FINAL, *nats.FULL)} <= set(table)
    relay = nats.Relay("nats://h")

    for code, words in table.items():
        error = errors.APIError(code=400, description="words", err_code=int(code))
        outcome = relay._outcome_of(error, "s")
        assert isinstance(outcome, verdict_of(words)), code


async def test_the_page_of_kafka() -> None:
    import confluent_kafka

    from durable_notify.brokers import kafka
    from durable_notify.brokers.broker import WorkingRoutes

    table = rows("kafka")
    assert {*kafka.FINAL, *kafka.FORBIDDEN} <= set(table)
    producer = kafka._Producer(
        confluent_kafka, {"bootstrap.servers": "127.0.0.1:1"}, WorkingRoutes()
    )
    try:
        for code, words in table.items():
            error = confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, code))
            outcome = producer._outcome_of(error, "t")
            assert isinstance(outcome, verdict_of(words)), code
    finally:
        await producer.close()


def test_the_page_of_webhooks(monkeypatch: pytest.MonkeyPatch) -> None:
    from durable_notify.brokers import webhooks
    from tests.support.receiver import SECRET

    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_SECRET", SECRET)
    relay = webhooks.Relay("https://example.com/")
    text = (DOCS / "relay-webhooks.md").read_text()
    verdicts = VERDICTS | {"it is settled": Sent, "the relay pauses": Gone}
    found = set()
    for line in text.split("the endpoint | what happens")[1].split("\n\n")[0].splitlines():
        codes, _, verdict = line.strip("| ").partition(" | ")
        for code in re.findall(r"`(\dxx|\d{3})`", codes):
            status = int(code.replace("xx", "07"))
            found.add(status)
            kind = next(kind for start, kind in verdicts.items() if verdict.startswith(start))
            assert type(relay._outcome_of(status, None)) is kind, code
    assert {207, 307, 410, *webhooks.BUSY} <= found
    assert type(relay._outcome_of(500, None)) is RetryLater
