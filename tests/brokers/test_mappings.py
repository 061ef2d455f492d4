"""Which message goes where: mappings, and the brokers they are for."""

from __future__ import annotations

import pytest

from durable_notify.brokers import broker as brokers
from durable_notify.brokers import nats
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.routes import Routes, parse_routes
from durable_notify.errors import InvalidArgument
from tests.brokers.test_sending import broker_message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("orders", "cannot be read"),
        ("orders=", "cannot be read"),
        ("orders=subject", "cannot be read"),
        ("orders=subject:", "cannot be read"),
        ("orders=subject:a,subject:b", "cannot be read"),
        ("orders=exchange:a", "has no 'exchange'"),
        ("orders=subject:{who}", "only {topic}"),
        ("orders=subject:{topic!r}", "only {topic}"),
        ("orders=subject:{topic:>9}", "only {topic}"),
        ("orders=subject:{", "cannot work"),
        ("order=subject:a", "matches none of the topics"),
        ("order.*=subject:a", "matches none of the topics"),
        ("or*=subject:a", "'*' stands for"),
        ("orders=subject:a b", "no subject"),
        ("orders=subject:a..{key}", "no subject"),
    ],
)
def test_mappings_that_cannot_work(line: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        AsyncRelay(
            "", broker_url="nats://h", group="g", topics=["orders"], routes=parse_routes([line])
        )
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("to", "line"),
    [
        ("redis://h", "orders=maxlen:many"),
        ("kafka://h?acks=1", ""),
        ("kafka://", ""),
        ("nats://", ""),
    ],
)
def test_brokers_that_cannot_work(to: str, line: str) -> None:
    with pytest.raises(InvalidArgument):
        AsyncRelay(
            "",
            broker_url=to,
            group="g",
            topics=["orders"],
            routes=parse_routes([line] if line else []),
        )


def test_what_a_mapping_fills_in() -> None:
    given = parse_routes(["orders.*=subject:a.{topic}.{key}.{id}", "orders.>=subject:{{x}}"])
    routes = Routes({"subject": "{topic}"}, given, ["orders.>", "x"], lambda *_: None)
    assert routes.of("orders.eu", "k", 7) == {"subject": "a.orders.eu.k.7"}
    assert routes.of("orders.eu", None, 7) == {"subject": "a.orders.eu..7"}
    assert routes.of("orders.eu.b", "k", 7) == {"subject": "{x}"}
    assert routes.of("x", "k", 7) == {"subject": "x"}
    assert routes.fixed("subject") == {"{x}"}


def test_a_publisher_does_not_steer_the_broker() -> None:
    """Nats-Rollup would purge the stream."""
    headers = nats._headers(
        broker_message(b"", headers={"Nats-Rollup": "all", "nats-msg-id": "x", "a": "1"})
    )
    assert headers["x-Nats-Rollup"] == "all"
    assert {name for name in headers if name.lower().startswith("nats-")} == {"Nats-Msg-Id"}
    assert headers["Nats-Msg-Id"] == "1-1"


def test_headers_of_nats_hold_one_line() -> None:
    headers = nats._headers(
        broker_message(b"", headers={"a": "x\r\nNats-Rollup: all", "b": "ä", "c": '"q"'})
    )
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert nats._flaw_of_names({"a\r\nb": ""})
    assert nats._flaw_of_names({"a:b": ""})


def test_a_client_that_is_not_installed() -> None:
    with pytest.raises(InvalidArgument, match=r"pip install 'durable-notify\[nats\]'"):
        brokers.client_of("nats", "no_such_client_of_nats")
