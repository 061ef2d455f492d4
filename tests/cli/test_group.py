"""`durable-notify group`, and what `status` says of strict groups."""

from __future__ import annotations

import json
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.cli import good, objects, on_a_terminal, run, start
from tests.support.wait import eventually

Connection = psycopg.Connection[Any]


def only(dsn: str) -> dict[str, Any]:
    (group,) = json.loads(good("group", "list", "--json", dsn=dsn))
    assert isinstance(group, dict)
    return group


def test_a_group_through_its_life(dsn: str) -> None:
    assert "No groups yet" in run("group", "list", dsn=dsn).stderr
    good("publish", "orders.eu", "1", dsn=dsn)
    assert len(objects(good("consume", "orders.*", "--group", "g", "--until-empty", dsn=dsn))) == 1
    group = only(dsn)
    assert (group["name"], group["order_by"], group["topics"]) == ("g", "key", ["orders.eu"])
    assert group["patterns"] == ["orders.*"]
    good("group", "configure", "g", "--order-by", "none", "--max-attempts", "3", "--retry-base", "0.5",
         "--rate-limit", "100", "--max-in-flight", "7", "--exclusive", dsn=dsn)  # fmt: skip
    group = only(dsn)
    names = ("order_by", "max_attempts", "retry_base", "rate_limit", "max_in_flight", "exclusive")
    assert [group[name] for name in names] == ["none", 3, 0.5, 100, 7, True]
    good(
        "group", "configure", "g", "--rate-limit", "0", "--max-in-flight", "0", "--shared", dsn=dsn
    )
    group = only(dsn)
    assert [group[name] for name in names[3:]] == [None, None, False]
    good("group", "configure", "g", "--retry-delays", "5,300.5", dsn=dsn)
    assert only(dsn)["retry_delays"] == [5, 300.5]
    good("group", "configure", "g", "--retry-delays", "none", dsn=dsn)
    assert only(dsn)["retry_delays"] == []
    good("group", "pause", "g", dsn=dsn)
    assert only(dsn)["paused_at"] is not None
    assert "yes" in good("group", "list", dsn=dsn)
    good("group", "resume", "g", dsn=dsn)
    assert only(dsn)["paused_at"] is None
    good("group", "rename", "g", "h", dsn=dsn)
    status, shown = on_a_terminal(b"n\n", "group", "delete", "h", dsn=dsn)
    assert status == 1
    assert "Delete group h" in shown
    assert only(dsn)["name"] == "h"
    good("group", "delete", "h", "--yes", dsn=dsn)
    assert json.loads(good("group", "list", "--json", dsn=dsn)) == []


def test_errors(dsn: str) -> None:
    for words, status in (
        (["configure", "unknown", "--max-attempts", "3"], 1), (["configure", "unknown"], 2),
        (["pause", "unknown"], 1), (["resume", "unknown"], 1), (["rename", "unknown", "x"], 1),
        (["delete", "unknown", "--yes"], 1), (["configure", "g", "--retry-factor", "0.1"], 2), (["configure", "g", "--retry-delays", "5,x"], 2),
    ):  # fmt: skip
        done = run("group", *words, dsn=dsn)
        assert done.returncode == status, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_a_paused_consumer_continues(dsn: str) -> None:
    consumer = start("consume", "t", "--group", "g", "--max", "1", dsn=dsn)
    eventually(lambda: bool(json.loads(good("group", "list", "--json", dsn=dsn))))
    good("group", "pause", "g", dsn=dsn)
    good("publish", "t", "1", dsn=dsn)
    good("group", "resume", "g", dsn=dsn)
    out, _ = consumer.communicate(timeout=20)
    assert json.loads(out)["payload"] == 1


def test_status_names_the_publishers_a_strict_group_waits_for(dsn: str, conn: Connection) -> None:
    good("consume", "t", "--group", "g", "--until-empty", dsn=dsn)
    good("group", "configure", "g", "--order-by", "strict", dsn=dsn)
    assert "waits for" not in good("status", dsn=dsn)
    assert "waits for no publisher" in run("group", "blocking-publishers", "g", dsn=dsn).stderr
    with psycopg.connect(dsn) as slow:
        dn.Publisher().publish(slow, "t", 1)
        pid = slow.info.backend_pid
        dn.Publisher().publish(conn, "t", 2)
        shown = good("status", dsn=dsn)
        assert f"Strict group g waits for process {pid} in database {slow.info.dbname}" in shown
        assert "durable_notify.publish" in shown
        (found,) = json.loads(good("group", "blocking-publishers", "g", "--json", dsn=dsn))
        assert (found["pid"], found["state"]) == (pid, "idle in transaction")
        assert str(pid) in good("group", "blocking-publishers", "g", dsn=dsn)
