"""Endpoints of webhooks as rows: created, changed, rotated, deleted, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.endpoints import derived_secret
from durable_notify.errors import UnknownGroup
from tests.support.roles import Roles, roles

Connection = psycopg.Connection[Any]
KEY = "k" * 32
URL = "https://shop.example/hooks/token-7"


@pytest.fixture
def webhooks(monkeypatch: pytest.MonkeyPatch) -> dn.Webhooks:
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_KEY", KEY)
    return dn.Webhooks()


@pytest.fixture
def cast(dsn: str) -> Iterator[Roles]:
    with roles(dsn) as made:
        yield made


def group_of(conn: Connection, name: str) -> Any:
    return next((each for each in dn.Admin().groups(conn) if each.name == name), None)


def test_create(webhooks: dn.Webhooks, conn: Connection) -> None:
    dn.Publisher().publish(conn, "orders.eu", {})
    made = webhooks.create(
        conn, "shop", url=URL, topics=["orders.*"], filter={"headers": {"shop": 7}}, timeout=5,
        headers={"X-Shop": "7"}, header_prefix="svix-", concurrency=3, pause_after=timedelta(days=1),
    )  # fmt: skip
    assert made == webhooks.endpoint(conn, "shop")
    assert [made] == webhooks.endpoints(conn)
    assert made.options == {
        "filter": {"headers": {"shop": 7}}, "timeout": 5.0, "headers": {"x-shop": "7"},
        "header_prefix": "svix-", "concurrency": 3, "pause_after": 86_400.0,
    }  # fmt: skip
    assert (made.url, made.host, made.topics, made.paused_at) == (
        URL, "shop.example", ["orders.*"], None,
    )  # fmt: skip
    assert "token" not in repr(made)
    group = group_of(conn, "shop")
    assert (group.max_attempts, group.patterns, group.topics) == (12, ["orders.*"], ["orders.eu"])
    (status,) = dn.Admin().status(conn)
    assert status.unread == 0  # it starts now
    webhooks.create(conn, "past", url=URL, topics=["orders.*"], start="beginning")
    assert sorted(each.unread or 0 for each in dn.Admin().status(conn)) == [0, 1]


def test_an_own_retry_policy_and_a_group_that_exists(
    webhooks: dn.Webhooks, conn: Connection
) -> None:
    webhooks.create(
        conn, "own", url=URL, topics=["t"], retry=dn.RetryPolicy(max_attempts=3), start="beginning"
    )
    assert group_of(conn, "own").max_attempts == 3
    conn.execute("SELECT durable_notify.subscribe('old', '{t}')")
    webhooks.create(conn, "old", url=URL, topics=["t"])
    assert group_of(conn, "old").max_attempts == 20


def test_change(webhooks: dn.Webhooks, conn: Connection) -> None:
    made = webhooks.create(
        conn, "shop", url=URL, topics=["orders.eu", "orders.us", "prices"], timeout=5
    )
    for topic in ("orders.eu", "prices"):
        dn.Publisher().publish(conn, topic, {})
    webhooks.change(
        conn,
        "shop",
        url="https://new.example/",
        topics=["orders.*"],
        timeout=None,
        cloudevents=True,
    )
    changed = webhooks.endpoint(conn, "shop")
    assert (changed.url, changed.topics, changed.options) == (
        "https://new.example/", ["orders.*"], {"cloudevents": True},
    )  # fmt: skip
    assert changed.changed_at > made.changed_at
    group = group_of(conn, "shop")
    assert (group.topics, group.patterns) == (["orders.eu", "orders.us"], ["orders.*"])
    assert sum(each.unread or 0 for each in dn.Admin().status(conn)) == 1  # of orders.eu, still
    webhooks.change(conn, "shop", topics=["orders.eu"])
    group = group_of(conn, "shop")
    assert (group.topics, group.patterns) == (["orders.eu"], [])
    assert sum(each.unread or 0 for each in dn.Admin().status(conn)) == 1


def test_rotate(webhooks: dn.Webhooks, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    made = webhooks.create(conn, "shop", url=URL, topics=["t"])
    first = webhooks.secret(made)
    assert first.startswith("whsec_")
    assert first == derived_secret(KEY, made.salt, 1)
    second = webhooks.rotate_secret(conn, "shop")
    assert second != first
    rotated = webhooks.endpoint(conn, "shop")
    now = datetime.now(UTC)
    assert rotated.signing_secrets([KEY], now) == [second, first]
    assert rotated.signing_secrets([KEY], now + timedelta(days=2)) == [second]
    assert len(rotated.signing_secrets([KEY, "other" * 8], now)) == 4
    with pytest.raises(dn.InvalidArgument, match="still valid"):
        webhooks.rotate_secret(conn, "shop", overlap=60)
    third = webhooks.rotate_secret(conn, "shop", overlap=0)
    assert webhooks.endpoint(conn, "shop").signing_secrets([KEY], now) == [third]
    assert webhooks.secret(webhooks.create(conn, "other", url=URL, topics=["t"])) != first
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_KEY", "short")
    with pytest.raises(dn.InvalidArgument, match="fewer than 32") as caught:
        webhooks.rotate_secret(conn, "shop", overlap=0)
    assert "short" not in str(caught.value)
    monkeypatch.delenv("DURABLE_NOTIFY_WEBHOOK_KEY")
    with pytest.raises(dn.InvalidArgument, match="there is no key at env:DURABLE"):
        webhooks.rotate_secret(conn, "shop", overlap=0)
    assert webhooks.endpoint(conn, "shop").secret_version == 3


def test_secrets_at_places(webhooks: dn.Webhooks, conn: Connection) -> None:
    made = webhooks.create(conn, "shop", url=URL, topics=["t"], secrets=["file:/run/shop"])
    with pytest.raises(dn.InvalidArgument, match="are at file:/run/shop of the relay"):
        webhooks.secret(made)
    with pytest.raises(dn.InvalidArgument, match="are not derived"):
        webhooks.rotate_secret(conn, "shop")
    webhooks.change(conn, "shop", secrets=[])
    assert webhooks.secret(webhooks.endpoint(conn, "shop")).startswith("whsec_")


def test_pause_and_delete(webhooks: dn.Webhooks, conn: Connection) -> None:
    webhooks.create(conn, "shop", url=URL, topics=["t"])
    webhooks.pause(conn, "shop")
    assert webhooks.endpoint(conn, "shop").paused_at is not None
    webhooks.resume(conn, "shop")
    assert webhooks.endpoint(conn, "shop").paused_at is None
    webhooks.delete(conn, "shop")
    assert group_of(conn, "shop") is None
    assert webhooks.endpoints(conn) == []
    conn.execute("SELECT durable_notify.subscribe('plain', '{t}')")
    for call in (webhooks.pause, webhooks.resume, webhooks.delete, webhooks.rotate_secret):
        with pytest.raises(UnknownGroup):
            call(conn, "plain")
    with pytest.raises(UnknownGroup):
        webhooks.change(conn, "none", timeout=3)
    webhooks.create(conn, "gone", url=URL, topics=["t"])
    dn.Admin().rename_group(conn, "gone", "went")
    assert [each.name for each in webhooks.endpoints(conn)] == ["went"]
    dn.Admin().delete_group(conn, "went")
    assert webhooks.endpoints(conn) == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"url": "ftp://x"}, "https://HOST/PATH"),
        ({"url": "https://u:p@x/"}, "without a password"),
        ({"url": "https://x/ y"}, "https://HOST/PATH"),
        ({"url": "x" * 3000}, "https://HOST/PATH"),
        ({"topics": []}, "topic"),
        ({"secrets": "env:X"}, "secrets are a list"),
        ({"secrets": ["whsec_abc"]}, "env:NAME or file:PATH"),
        ({"filter": {"path": "$"}}, "key, headers or payload"),
        ({"headers": {"Host": "x"}}, "cannot be set"),
        ({"headers": {"webhook-id": "x"}}, "cannot be set"),
        ({"headers": {"x": "a\nb"}}, "visible ASCII"),
        ({"header_prefix": "Svix"}, "lower case"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": 301}, "1 to 300"),
        ({"concurrency": 101}, "concurrency"),
        ({"pause_after": -1}, "pause_after"),
        ({"tiemout": 3}, "Did you mean timeout"),
    ],
)
def test_refused(settings: Any, reason: str, webhooks: dn.Webhooks, conn: Connection) -> None:
    with pytest.raises(dn.InvalidArgument, match=reason):
        webhooks.create(conn, "shop", **{"url": URL, "topics": ["t"], **settings})
    assert dn.Admin().groups(conn) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "'{}', 'https://x'", "'{t}', 'x'", "'{t}', 'https://a@x/'", "'{t}', NULL", "NULL, 'https://x'",
        "'{t}', 'https://x', '[]'", "'{t}', 'https://x', '{\"pause\": 1}'", "'{t}', 'https://x', NULL",
        "'{t}', 'https://x', '{\"timeout\": \"1\"}'", "'{t}', 'https://x', '{\"concurrency\": 1.5}'",
        "'{t}', 'https://x', '{\"headers\": {\"a\": 1}}'", "'{t}', 'https://x', '{\"filter\": {\"a\": 1}}'",
        "'{t}', 'https://x', '{}', '{whsec_abc}'", "'{t}', 'https://x', '{\"timeout\": 1e400}'",
    ],
)  # fmt: skip
def test_sql_refuses_too(wrong: str, conn: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute(f"SELECT durable_notify.create_webhook('g', {wrong})".encode())
    assert dn.Admin().groups(conn) == []


def test_twice(webhooks: dn.Webhooks, conn: Connection) -> None:
    webhooks.create(conn, "shop", url=URL, topics=["t"])
    with pytest.raises(dn.InvalidArgument, match="already"):
        webhooks.create(conn, "shop", url=URL, topics=["u"])
    assert group_of(conn, "shop").topics == ["t"]


def test_the_audit_has_no_secret(webhooks: dn.Webhooks, conn: Connection) -> None:
    made = webhooks.create(conn, "shop", url=URL, topics=["t"], headers={"authorization": "pass"})
    webhooks.change(conn, "shop", url=URL + "2", headers={"authorization": "word"})
    webhooks.rotate_secret(conn, "shop")
    webhooks.pause(conn, "shop")
    webhooks.delete(conn, "shop")
    entries = dn.Admin().audit(conn)
    assert [each.action for each in reversed(entries)] == [
        "configure", "create webhook", "change webhook", "rotate webhook secret", "pause", "delete",
    ]  # fmt: skip
    for secret in ("token-7", "pass", "word", made.salt):
        assert secret not in repr(entries)


def test_failing(webhooks: dn.Webhooks, conn: Connection) -> None:
    def note(failure: str | None, *, gone: bool = False) -> bool:
        row = conn.execute(
            "SELECT durable_notify.note_webhook('shop', %s, %s)", [failure, gone]
        ).fetchone()
        return bool(row and row[0])

    webhooks.create(conn, "shop", url=URL, topics=["t"], pause_after=3600)
    assert not note("answered 500")
    first = webhooks.endpoint(conn, "shop")
    assert (first.failing_since is not None, first.failure) == (True, "answered 500")
    assert not note("answered 404")
    again = webhooks.endpoint(conn, "shop")
    assert (again.failing_since, again.failure) == (first.failing_since, "answered 404")
    assert not note(None)
    assert webhooks.endpoint(conn, "shop").failing_since is None
    assert not note("answered 500")
    conn.execute(
        "UPDATE durable_notify.webhook SET failing_since = failing_since - interval '1 hour'"
    )
    assert note("answered 500")
    assert webhooks.endpoint(conn, "shop").paused_at is not None
    (entry, *_) = dn.Admin().audit(conn, "shop")
    assert entry.action == "pause"
    assert (entry.why or "").startswith("failing since ")
    assert (entry.why or "").endswith(": answered 500")
    webhooks.resume(conn, "shop")
    assert webhooks.endpoint(conn, "shop").failing_since is None
    assert note("answered 410", gone=True)
    assert dn.Admin().audit(conn, "shop")[0].why == "answered 410"
    webhooks.resume(conn, "shop")
    webhooks.change(conn, "shop", pause_after=0)
    note("answered 500")
    conn.execute("UPDATE durable_notify.webhook SET failing_since = now() - interval '1 year'")
    assert not note("answered 500")


def test_grants(webhooks: dn.Webhooks, conn: Connection, cast: Roles) -> None:
    """A role with all groups of a prefix manages the endpoints there, and no others."""
    webhooks.create(conn, "other", url=URL, topics=["orders.eu"])
    kind = "consumer"
    with psycopg.connect(cast.login(kind)) as session:
        (role,) = session.execute("SELECT current_user").fetchone() or ()
    dn.Admin().grant(conn, role, "consume", ["orders.*"], group="hook-*")
    with psycopg.connect(cast.login(kind), autocommit=True) as session:
        made = webhooks.create(session, "hook-7", url=URL, topics=["orders.eu"])
        webhooks.change(session, "hook-7", topics=["orders.us"], timeout=3)
        webhooks.rotate_secret(session, "hook-7")
        webhooks.pause(session, "hook-7")
        webhooks.resume(session, "hook-7")
        assert [each.name for each in webhooks.endpoints(session)] == ["hook-7"]
        session.execute("SELECT durable_notify.note_webhook('hook-7', 'x')")
        session.execute("SELECT * FROM durable_notify.claim('hook-7', '{orders.us}')")
        for refused in (
            lambda: webhooks.create(session, "hook-8", url=URL, topics=["salaries"]),
            lambda: webhooks.create(session, "ho", url=URL, topics=["orders.eu"]),
            lambda: webhooks.change(session, "hook-7", topics=["salaries"]),
            lambda: webhooks.change(session, "other", timeout=3),
            lambda: webhooks.delete(session, "other"),
            lambda: webhooks.rotate_secret(session, "other"),
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, UnknownGroup)):
                refused()
        webhooks.delete(session, "hook-7")
    assert made.name == "hook-7"
    assert [each.name for each in webhooks.endpoints(conn)] == ["other"]
    with psycopg.connect(cast.login("observer"), autocommit=True) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            webhooks.endpoints(session)
