"""Errors lead to the remedy: each says what to do, in commands that work."""

from __future__ import annotations

import logging
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from durable_notify import events, options
from durable_notify._core import grant_hints as allowing
from durable_notify.integrations.logs import LogEvents
from tests.security.decisions import MAY
from tests.support.cli import fails, good, run
from tests.support.roles import roles
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]

publisher = dn.Publisher()


# A right that is missing


def consume(dsn: str, conn: Connection) -> None:
    dn.Consumer(dsn, group="mine g", topics=["t", "p.*"], until_empty=True).run(print)


def read(dsn: str, conn: Connection) -> None:
    with dn.Reader(dsn, topics=["r"]):
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda _, role: publisher.publish(role, "a$b", 1),
        lambda _, role: publisher.publish_many(role, "a$b", [1]),
        consume,
        read,
        lambda _, role: dn.Admin().status(role),
    ],
)
def test_a_role_without_grants_is_told_what_to_grant(dsn: str, call: Any) -> None:
    """And the remedy works as it is written."""
    with roles(dsn, {"stranger": []}) as made:
        login = made.login("stranger")
        with psycopg.connect(login, autocommit=True) as role:
            with pytest.raises(errors.InsufficientPrivilege) as error:
                call(login, role)
            found = re.search(r"HINT: .*: durable-notify (grant .*)", str(error.value))
            assert found, str(error.value)
            assert made.names["stranger"] in found[1]
            good("--dsn", dsn, *shlex.split(found[1]))
            call(login, role)


def test_what_only_the_owner_does(dsn: str, conn: Connection) -> None:
    with roles(dsn, {"stranger": []}) as made, psycopg.connect(made.login("stranger")) as role:
        with pytest.raises(errors.InsufficientPrivilege, match="Run it as the owner"):
            dn.Admin().delete_group(role, "g")


def test_a_grant_that_lacks_something_says_what(dsn: str) -> None:
    """What the database half refuses by name is left as it is."""
    with roles(dsn, {"publisher": [("publish", ["a"], None)]}) as made:
        with psycopg.connect(made.login("publisher")) as role:
            with pytest.raises(errors.InsufficientPrivilege) as error:
                publisher.publish(role, "b", 1)
    assert str(error.value).count("durable-notify grant") == 1
    assert "--publish b" in str(error.value).replace("'", "")


@pytest.mark.parametrize("name", [name for name, kinds in MAY.items() if kinds])
def test_every_function_that_can_be_granted_has_its_command(name: str) -> None:
    ours = {
        "publisher": "--publish",
        "consumer": "--consume",
        "reader": "--read",
        "observer": "--observe",
        "maintainer": "--maintain",
    }
    wanted = allowing.to_call(f"SELECT durable_notify.{name}(%s)", ("x",))
    if MAY[name] & {"inserter"} or wanted is None:
        assert name in {
            "_is_owner", "channel", "notify_policy", "min_client_version", "_no_waiter", "_no_pattern_waiter", "_family", "_is_message", "_try_doorbell", "_release_doorbell", "_has_waiter",
            "_validate_message", "_has_controls", "_notify_waiters", "mirror_of", "_key_required", "_notify_payload", "topic_of_channel",
            "_percent_encode", "already_published", "_doorbell_class", "_topic_mark", "arm", "disarm", "armed", "_arm_topics",
            "_disarm_topics", "unnotified_transactions", "still_running", "_open_writers",
        }  # fmt: skip
        return
    assert any(kind in MAY[name] and option in wanted for kind, option in ours.items())


# No schema


def test_publishing_without_migrations(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn) as connection:
        for call in (
            lambda: publisher.publish(connection, "t", 1),
            lambda: publisher.publish_many(connection, "t", [1]),
            lambda: dn.Admin().groups(connection),
        ):
            with pytest.raises(
                dn.errors.SchemaMissing, match="Run `durable-notify migrate`"
            ) as error:
                call()
            assert isinstance(error.value.__cause__, errors.InvalidSchemaName)
            connection.rollback()
    good("--dsn", empty_dsn, "migrate")
    with psycopg.connect(empty_dsn) as connection:
        publisher.publish(connection, "t", 1)


def test_a_schema_without_what_is_called(dsn: str, conn: Connection) -> None:
    conn.execute("ALTER FUNCTION durable_notify.publish_many RENAME TO published_many")
    with pytest.raises(
        dn.errors.SchemaTooOld, match=r"publish_many.*durable-notify migrate"
    ) as error:
        publisher.publish_many(conn, "t", [1])
    assert isinstance(error.value.__cause__, errors.UndefinedFunction)
    conn.execute("ALTER FUNCTION durable_notify.publish RENAME TO published")
    fails(
        run("publish", "t", "1", dsn=dsn), 1, "publish", "\nrun: durable-notify migrate. If that "
        "changes nothing, an unreleased checkout made the schema: it cannot be upgraded",
    )  # fmt: skip


# Options


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_retries", "group=dn.Group(..., retry=dn.RetryPolicy(max_attempts=...))"),
        ("max_attempt", "group=dn.Group(..., retry=dn.RetryPolicy(max_attempts=...))"),
        ("order_bye", "group=dn.Group(..., order_by=...)"),
        ("max_inflight", "group=dn.Group(..., max_in_flight=...)"),
        ("auto_offset_reset", "group=dn.Group(..., start=...)"), ("visibility_timeout", "lease"),
        ("leese", "lease"), ("prefetch_count", "prefetch"), ("untill_empty", "until_empty"),
        ("handler", "run(handler)"),
        ("max_workers", "concurrency"),
    ],
)  # fmt: skip
def test_an_option_that_there_is_not(name: str, meant: str) -> None:
    for kind in (dn.Consumer, dn.AsyncConsumer):
        with pytest.raises(dn.InvalidArgument) as error:
            kind("", group="g", topics=["t"], **{name: 3})  # type: ignore[arg-type]
        assert str(error.value) == f"a consumer has no option {name!r}. Did you mean {meant}?"


def test_an_option_like_none() -> None:
    with pytest.raises(dn.InvalidArgument, match=r"no option 'xyzzy'; it has .*until_empty"):
        dn.Consumer("", group="g", topics=["t"], xyzzy=1)  # type: ignore[call-arg]


def test_an_option_of_a_group_that_there_is_not(conn: Connection) -> None:
    with pytest.raises(
        dn.InvalidArgument,
        match=r"no option 'max_retries'. Did you mean retry=dn.RetryPolicy\(max_att",
    ):
        dn.Admin().configure(conn, "g", max_retries=3)  # type: ignore[call-arg]
    with pytest.raises(
        dn.InvalidArgument, match="a group has no option 'visibility_timeout'; it has"
    ):
        dn.Admin().configure(conn, "g", visibility_timeout=3)  # type: ignore[call-arg]


def test_what_others_call_it_leads_to_options_that_there_are() -> None:
    known = options.ConsumerSettings.__annotations__.keys()
    assert not options._CALLED.keys() & known
    kinds = (options.ConsumerOptions, dn.Group, dn.RetryPolicy)
    of_group = {name for kind in kinds for name in kind.__dataclass_fields__}
    for meant in options._CALLED.values():
        if meant.startswith("group=dn.Group(..., "):
            assert set(re.findall(r"(\w+)=", meant)) <= of_group
        else:
            assert meant in {*known, "run(handler)"}


# Logs


def test_a_retry_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    retried = {"group": "g", "topic": "t", "message_id": 1, "attempt": 1}
    with caplog.at_level(logging.DEBUG, "durable_notify.events"):
        for delay in (None, 2.5):
            LogEvents()(events.Retried(**retried, delay=delay, error=None))  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "retried group=g topic=t message_id=1 attempt=1 delay=backoff",
        "retried group=g topic=t message_id=1 attempt=1 delay=2.5",
    ]
    assert caplog.records[0].delay is None  # type: ignore[attr-defined]


@contextmanager
def iterating(dsn: str, **options: Any) -> Iterator[dn.Consumer]:
    """A consumer whose messages are iterated over in a thread, and not settled."""
    consumer = dn.Consumer(dsn, group="g", topics=["t"], heartbeat_interval=0.3, **options)

    def iterate() -> None:
        with consumer:
            for _ in consumer:
                pass

    thread = threading.Thread(target=iterate, daemon=True)
    thread.start()
    try:
        yield consumer
    finally:
        consumer.stop()
        thread.join(20)
        assert not thread.is_alive()


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"until_empty": True}, "until_empty ends it"), ({"prefetch": 2}, "prefetch is reached")],
)
def test_iteration_without_acknowledgements(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture, options: Any, words: str
) -> None:
    publisher.publish_many(conn, "t", [1, 2])
    with iterating(dsn, **options):
        eventually(lambda: said(caplog, words) != [])
        message = said(caplog, words)[0]
        assert "2 delivered messages are not settled" in message
        assert "ack(), retry() or reject()" in message


def test_iteration_that_settles_says_nothing(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish_many(conn, "t", [1, 2])
    unfinished = threading.Event()
    with dn.Consumer(
        dsn, group="g", topics=["t"], heartbeat_interval=0.1, until_empty=True
    ) as consumer:
        for message in consumer:
            unfinished.wait(0.5)  # a body that takes several heartbeats works, and does not wait
            message.ack()
    assert said(caplog, "iteration waits") == []


def test_a_topic_that_was_never_published_to(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(conn, "orders", 1)
    publisher.publish(conn, "invoices", 1)

    def start(*topics: str) -> list[str]:
        caplog.clear()
        dn.Consumer(dsn, group="g", topics=topics, until_empty=True).run(lambda _: None)
        return said(caplog, "no message was published")

    (message,) = start("ordrs", "orders")
    assert "'ordrs'" in message
    assert "Is it 'orders' that is meant?" in message
    (message,) = start("quite.another")
    assert "meant" not in message
    assert start("orders", "orders.*") == []
    conn.execute("DELETE FROM durable_notify.outbox")
    assert start("orders") == [], "it was handed one"


def test_other_topics_names_are_for_the_owner(
    dsn: str, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish(conn, "orders.nev", 1)
    with roles(dsn, {"consumer": [("consume", ["orders.new"], "g")]}) as made:
        consumer = dn.Consumer(
            made.login("consumer"), group="g", topics=["orders.new"], until_empty=True
        )
        consumer.run(lambda _: None)
    (message,) = said(caplog, "no message was published")
    assert "orders.nev" not in message
