"""docs/operator-events.md: its alerts arrive, at something like Slack and at a webhook."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path

import psycopg
import pytest

import durable_notify as dn
from durable_notify import asyncapi, operator_events
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.webhooks import WebhookOptions
from tests.docs.pages import blocks
from tests.support.api import with_group
from tests.support.postgres import CHECKOUT
from tests.support.receiver import SECRET, receiving
from tests.support.wait import eventually

PAGE = CHECKOUT / "docs" / "operator-events.md"


@pytest.fixture
def failed(dsn: str) -> int:
    """The id of a dead letter of group shop, of which an event was published."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SELECT durable_notify.subscribe('shop', '{orders}')")
        for kind in ("dead_letter", "group_failing"):
            dn.Admin().set_operator_events(conn, kind)
        number = dn.Publisher().publish(conn, "orders", "secret")
        (row,) = conn.execute("SELECT token FROM durable_notify.claim('shop', '{orders}')")
        conn.execute(
            "SELECT durable_notify.settle(%s, rejected => ARRAY[%s::int8])", [row[0], number]
        )
    return number


def test_the_handlers(
    dsn: str, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = [block for block in blocks(PAGE) if block.value == "alerts.py"]
    (tmp_path / "alerts.py").write_text(program.text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("alerts", tmp_path / "alerts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with receiving() as slack:
        monkeypatch.setenv("DATABASE_URL", dsn)
        monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
        spec.loader.exec_module(module)
        thread = threading.Thread(target=module.consumer.run)
        thread.start()
        try:
            eventually(lambda: bool(slack.requests))
        finally:
            module.consumer.stop()
            thread.join(20)
    (request,) = slack.requests
    assert request.payload == {"text": f"shop gave up message {failed} of orders: rejected"}


async def test_the_relay(dsn: str, failed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_SECRET", SECRET)
    with receiving() as hook:
        options = {"topics": ["durable_notify.>"], "group": "alerts", "until_empty": True}
        webhook = WebhookOptions(allow=("127.0.0.0/8",))
        await AsyncRelay(dsn, broker_url=hook.url, webhook=webhook, **with_group(options)).run()
    (request,) = hook.requests
    request.verify()
    assert request.headers["durable-notify-topic"] == "durable_notify.dead_letter"
    assert request.payload == {
        "group": "shop", "topic": "orders", "id": failed, "attempts": 1, "reason": "rejected",
        "error_type": None,
    }  # fmt: skip


def test_every_kind_has_a_type_and_a_row() -> None:
    topics = {topic.name for topic in asyncapi.topics_of(operator_events)}
    text = PAGE.read_text(encoding="utf-8")
    assert {name for name in topics if f"| `{name}` |" in text} == topics
    schema = (CHECKOUT / "migrations/schema/tables/operator_events.sql").read_text()
    assert all(f"'{name.removeprefix('durable_notify.')}'" in schema for name in topics)
    assert json.dumps(asyncapi.document(operator_events))
