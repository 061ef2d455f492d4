"""What each topic takes, from a sample."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

import durable_notify as dn
from tests.support.cli import good, run
from tests.support.retention import retain
from tests.support.sessions import Sessions


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as made:
        yield made


PUBLISH = """
    INSERT INTO durable_notify.outbox (topic, payload)
    SELECT %s, to_jsonb(repeat(md5(n::text), %s)) FROM generate_series(1, %s) AS n"""


def test_sizes(sessions: Sessions, dsn: str) -> None:
    one = sessions.session()
    assert "There is no message" in run("topics", dsn=dsn).stderr
    one.subscribe("g", "large small")
    one.run(PUBLISH, "large", 10, 30_000)
    one.run(PUBLISH, "small", 1, 3_000)
    one.run(PUBLISH, "unread", 1, 3_000)
    retain(one, "small", max_age="7 days")
    found = {storage.topic: storage for storage in dn.Admin().topics(one.connection)}
    assert list(found) == ["large", "small", "unread"]
    assert [(s.groups, s.pattern) for s in found.values()] == [(1, ">"), (1, "small"), (0, ">")]
    whole = one.value(
        "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('durable_notify.outbox')"
    )
    assert 0.95 * float(whole) < sum(s.bytes for s in found.values()) <= float(whole)
    assert found["large"].bytes > 0.8 * float(whole)
    assert 20_000 < found["large"].messages < 45_000
    rows = json.loads(good("topics", "--json", dsn=dsn))
    assert [row["topic"] for row in rows] == ["large", "small", "unread"]
    shown = good("topics", dsn=dsn)
    assert "until settled, 30 days at least" in shown
    assert "for 7 days" in shown


def test_the_last_round(sessions: Sessions) -> None:
    one = sessions.session()
    query = "SELECT seconds < 3600, failed, report FROM durable_notify.maintenance_status()"
    assert one.run(query) == [(True, 0, None)]
    one.run("SELECT durable_notify.maintain_begin('w', '0')")
    one.run('SELECT durable_notify.maintain_end(\'w\', \'{"remove failed": "x", "lose": 1}\')')
    assert one.run(query) == [(True, 1, {"remove failed": "x", "lose": 1})]
