"""The command line, from outside: what it prints, and that it loses nothing."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable_notify import Admin, Consumer, Publisher
from tests.support.cli import (
    COMMAND,
    PATIENCE,
    cli_environment,
    drain,
    end,
    fails,
    good,
    objects,
    on_a_terminal,
    payloads,
    run,
    start,
)
from tests.support.missing import slow_but
from tests.support.wait import eventually

KEYS = ["id", "topic", "key", "payload", "headers", "published_at", "attempt"]


def test_one_message_from_publish_to_consume(dsn: str) -> None:
    message_id = good(
        "publish", "t", '{"a": [1, "ü\u2028"]}', "--key", "k", "--header", "x=y=z", dsn=dsn
    )
    (line,) = good("consume", "t", "--group", "g", "--until-empty", dsn=dsn).splitlines()
    message = json.loads(line)
    assert list(message) == KEYS
    published_at = datetime.fromisoformat(message.pop("published_at"))
    assert abs((datetime.now(UTC) - published_at).total_seconds()) < 60
    assert message == {
        "id": int(message_id),
        "topic": "t",
        "key": "k",
        "payload": {"a": [1, "ü\u2028"]},
        "headers": {"x": "y=z"},
        "attempt": 1,
    }
    assert drain(dsn) == []


def test_text_and_the_option_after_the_command(dsn: str) -> None:
    assert good("publish", "t", "not json", "--text", "--dsn", dsn).strip().isdigit()
    good("--dsn", dsn, "publish", "t", "--text", given="a b\n\n{}\r\n")
    assert payloads(
        good("consume", "t", "--group", "g", "--until-empty", "--dsn", dsn, DATABASE_URL="x://y")
    ) == ["not json", "a b", "{}"]


@pytest.mark.parametrize(
    "prefix", ["postgresql+psycopg://", "postgres://", "postgresql+asyncpg://"]
)
def test_database_url_as_sqlalchemy_writes_it(dsn: str, prefix: str) -> None:
    if not dsn.startswith("postgresql://"):
        pytest.skip("the tests' server was not given as a URI")
    url = dsn.replace("postgresql://", prefix, 1)
    assert good("publish", "t", "1", DATABASE_URL=url).strip().isdigit()


def test_bytes_are_shown_as_base64(dsn: str, conn: psycopg.Connection[Any]) -> None:
    Publisher().publish(conn, "t", b"\0\xff")
    assert drain(dsn) == [{"base64": base64.b64encode(b"\0\xff").decode()}]


def test_several_topics_and_max(dsn: str) -> None:
    good("publish", "a", dsn=dsn, given="1\n2\n")
    good("publish", "b", dsn=dsn, given="3\n4\n")
    first = good("consume", "a", "b", "--group", "g", "--max", "3", dsn=dsn)
    rest = good("consume", "a", "b", "--group", "g", "--until-empty", dsn=dsn)
    assert len(payloads(first)) == 3
    assert sorted(payloads(first) + payloads(rest)) == [1, 2, 3, 4]
    assert {message["attempt"] for message in objects(first + rest)} == {1}


def test_where_a_new_group_starts(dsn: str) -> None:
    good("publish", "t", "1", dsn=dsn)
    assert drain(dsn, "t", "late", "--start", "now") == []
    assert drain(dsn, "t", "older", "--start", "1h") == [1]
    assert drain(dsn, "t", "newer", "--start", "2999-01-01T00:00Z") == []
    good("publish", "t", "2", dsn=dsn)
    assert drain(dsn, "t", "late") == [2]


def test_ndjson_in_transactions_of_a_thousand(dsn: str, conn: psycopg.Connection[Any]) -> None:
    lines = "".join(f'{{"n": {n}}}\n' for n in range(2500))
    done = run("publish", "t", dsn=dsn, given=lines.removesuffix("\n"))
    assert (done.returncode, done.stdout) == (0, "")
    assert "published 2500 messages" in done.stderr
    sizes = conn.execute("SELECT count(*) FROM durable_notify.outbox GROUP BY xid").fetchall()
    assert max(size for (size,) in sizes) <= 1000
    assert drain(dsn) == [{"n": n} for n in range(2500)]


def test_ndjson_with_ids_and_envelopes(dsn: str) -> None:
    given = (
        '\ufeff{"payload": 1, "key": "k", "headers": {"a": [1]}}\n'
        '   \n{"payload": null}\n{"payload": 3, "key": null, "headers": null}\n'
    )
    options = ["--envelope", "--ids", "--key", "d", "--header", "b=2"]
    ids = good("publish", "t", *options, dsn=dsn, given=given)
    found = objects(good("consume", "t", "--group", "g", "--until-empty", dsn=dsn))
    assert [message["id"] for message in found] == [int(line) for line in ids.split()]
    assert [(message["payload"], message["key"], message["headers"]) for message in found] == [
        (1, "k", {"a": [1], "b": "2"}),
        (None, "d", {"b": "2"}),
        (3, "d", {"b": "2"}),
    ]


BAD_LINES = {
    "{x": "not JSON",
    "NaN": "not JSON",
    "1e400": "out of range",
    '"a\\u0000b"': "NUL",
    '"\\ud800"': "surrogate",
    "1" * 5000: "not JSON",
    "[" * 100_000: "nested",
}


@pytest.mark.parametrize(
    "bad", slow_but(BAD_LINES, *list(BAD_LINES)[:2]), ids=lambda line: line[:12]
)
def test_bad_line_in_the_middle(dsn: str, bad: str) -> None:
    lines = [str(n) for n in range(1, 1501)] + [bad] + ["9999"] * 10
    done = run("publish", "t", dsn=dsn, given="\n".join(lines))
    fails(done, 1, "line 1501: ", BAD_LINES[bad], "1500 messages published: all before line 1501")
    assert "Line 1501 and everything after it is not" in done.stderr
    assert "tail -n +1501" in done.stderr
    assert drain(dsn) == list(range(1, 1501))


@pytest.mark.parametrize(
    "bad",
    slow_but(
        [b'"\xff"', b"[1]", b'{"payload": 1, "kee": 2}', b'{"payload": 1, "key": 2}',
         b'{"payload": 1, "key": ""}', b'{"payload": 1, "headers": [1]}', b'{"key": "k"}'],
        b'"\xff"', b'{"payload": 1, "kee": 2}',
    ),
)  # fmt: skip
def test_bad_envelope(dsn: str, bad: bytes) -> None:
    done = run("publish", "t", "--envelope", dsn=dsn, given=b'{"payload": 1}\n' + bad + b"\n")
    fails(done, 1, "line 2: ", "1 message published")
    assert drain(dsn) == [1]


def test_line_that_only_postgresql_refuses(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "ALTER TABLE durable_notify.outbox ADD CONSTRAINT small CHECK "
        "((payload #>> '{}')::smallint IS NOT NULL)"  # out of range: a DataError
    )
    done = run("publish", "t", dsn=dsn, given="1\n2\n70000\n4\n")
    fails(done, 1, "line 3: PostgreSQL refuses it", "2 messages published: all before line 3")
    assert drain(dsn) == [1, 2]


def test_input_that_pauses_is_published_at_once(dsn: str, conn: psycopg.Connection[Any]) -> None:
    process = subprocess.Popen(
        [*COMMAND, "publish", "t", "--ids"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn),
    )
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"1\n2\n[")
    process.stdin.flush()
    ids = [int(process.stdout.readline()) for _ in range(2)]
    rows = conn.execute("SELECT id FROM durable_notify.outbox ORDER BY id").fetchall()
    assert [row[0] for row in rows] == ids
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert b"error: interrupted\n2 messages published: all before line 3." in err


def test_5_mb(dsn: str) -> None:
    payload = {"text": "ü" * 2_500_000}
    good("publish", "t", dsn=dsn, given=json.dumps(payload, ensure_ascii=False))
    assert drain(dsn) == [payload]


# the end of a consumer


def test_head_takes_three_and_loses_none(dsn: str) -> None:
    good("publish", "t", dsn=dsn, given="\n".join(map(str, range(100))))
    head = subprocess.Popen(["head", "-3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert head.stdin
    consumer = start("consume", "t", "--group", "g", dsn=dsn, stdout=head.stdin)
    head.stdin.close()
    assert consumer.stderr
    assert consumer.wait(PATIENCE) == 0
    assert consumer.stderr.read() == b""
    consumer.stderr.close()
    assert head.stdout
    with head.stdout:
        taken = payloads(head.stdout.read().decode())
    head.wait()
    found = objects(good("consume", "t", "--group", "g", "--until-empty", dsn=dsn))
    assert taken == [0, 1, 2]
    assert sorted(message["payload"] for message in found) == list(range(3, 100))
    assert {message["attempt"] for message in found} == {1}


def test_reader_that_goes_while_nothing_comes(dsn: str) -> None:
    good("publish", "t", "1", dsn=dsn)
    consumer = start("consume", "t", "--group", "g", dsn=dsn)
    assert consumer.stdout
    assert consumer.stderr
    assert json.loads(consumer.stdout.readline())["payload"] == 1
    consumer.stdout.close()
    assert consumer.wait(PATIENCE) == 0
    with consumer.stderr:
        assert consumer.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_gracefully(dsn: str, number: signal.Signals) -> None:
    consumer = start("consume", "t", "--group", "g", dsn=dsn)
    assert consumer.stdout
    eventually(
        lambda: "g" in {row["group"] for row in json.loads(good("status", "--json", dsn=dsn))}
    )
    good("publish", "t", dsn=dsn, given="1\n2\n3\n")  # after it went to sleep, or just before
    taken = [json.loads(consumer.stdout.readline())["payload"]]
    consumer.send_signal(number)
    rest, err = end(consumer)
    assert consumer.returncode == 0
    assert "group 'g' waits for topic 't', to which no message was published so far" in err
    taken += [message["payload"] for message in rest]
    (row,) = json.loads(good("status", "--json", dsn=dsn))
    assert (row["live_leases"], row["leased"]) == (0, 0)
    assert taken + drain(dsn) == [1, 2, 3]


def test_signal_while_the_pipe_is_full(dsn: str) -> None:
    """The pipe is full; what does not fit is given back."""
    good("publish", "t", dsn=dsn, given="\n".join(f'"{n:05} {"x" * 10_000}"' for n in range(20)))
    consumer = start("consume", "t", "--group", "g", dsn=dsn)
    eventually(lambda: json.loads(good("status", "--json", dsn=dsn))[0]["leased"])
    consumer.send_signal(signal.SIGTERM)
    assert consumer.wait(PATIENCE) == 0
    out, err = consumer.communicate()
    assert err == b""
    whole = [json.loads(line)["payload"] for line in out.split(b"\n")[:-1]]
    assert {text[:5] for text in whole + drain(dsn)} == {f"{n:05}" for n in range(20)}


def test_killed_consumer_loses_nothing(dsn: str) -> None:
    # More than it claims ahead, while its pipe is full.
    good("publish", "t", dsn=dsn, given="\n".join(map(str, range(3000))))
    consumer = start("consume", "t", "--group", "g", "--lease", "1", dsn=dsn)
    assert consumer.stdout
    taken = [json.loads(consumer.stdout.readline())["payload"] for _ in range(50)]
    consumer.kill()
    rest, _ = end(consumer)
    taken += [message["payload"] for message in rest]
    found = objects(good("consume", "t", "--group", "g", "--until-empty", dsn=dsn))
    assert set(taken) | {message["payload"] for message in found} == set(range(3000))
    assert {message["attempt"] for message in found} == {1, 2}  # the leased ones, and the others


def test_output_that_is_full(dsn: str) -> None:
    good("publish", "t", dsn=dsn, given="1\n2\n")
    with Path("/dev/full").open("wb") as full:
        consumer = start("consume", "t", "--group", "g", "--until-empty", dsn=dsn, stdout=full)
        _, err = consumer.communicate(timeout=PATIENCE)
    assert consumer.returncode == 1
    assert err.startswith(b"error: standard output: [Errno 28]")
    assert drain(dsn) == [1, 2]


# replay, status, dead-letters


def test_replay_says_how_many_first(dsn: str) -> None:
    ids = good("publish", "t", "--ids", dsn=dsn, given="1\n2\n3\n").split()
    drain(dsn)
    place = ["replay", "--group", "g", "--topic", "t"]
    assert "3 messages of t would be redelivered to g" in good(
        *place, "--from-beginning", "--dry-run", dsn=dsn
    )
    assert drain(dsn) == []
    assert "2 messages of t are redelivered to g" in good(*place, "--after", ids[0], dsn=dsn)
    assert drain(dsn) == [2, 3]
    assert "3 messages" in good(*place, "--since", "10m", "--yes", dsn=dsn)
    assert drain(dsn) == [1, 2, 3]
    assert "0 messages" in good(*place, "--since", "2999-01-01", dsn=dsn)
    assert "3 messages" in good(*place, "--from-beginning", dsn=dsn)
    assert drain(dsn) == [1, 2, 3]


def test_replay_asks_on_a_terminal(dsn: str) -> None:
    good("publish", "t", "1", dsn=dsn)
    drain(dsn)
    replay = ["replay", "--group", "g", "--topic", "t", "--from-beginning"]
    status, said = on_a_terminal(b"n\n", *replay, dsn=dsn)
    assert status == 1
    assert "cancelled; nothing has changed" in said
    assert said.index("1 message of t is redelivered") < said.index("Continue? [y/N]")
    assert drain(dsn) == []
    assert on_a_terminal(b"y\n", *replay, dsn=dsn)[0] == 0
    assert drain(dsn) == [1]


def test_typing_messages_on_a_terminal(dsn: str) -> None:
    status, said = on_a_terminal(b"1\n2\n\x04", "publish", "t", dsn=dsn)
    assert status == 0
    assert "Ctrl-D" in said
    assert drain(dsn) == [1, 2]


def test_unknown_group_or_topic(dsn: str) -> None:
    good("publish", "t", "1", dsn=dsn)
    drain(dsn)
    done = run("replay", "--group", "x", "--topic", "t", "--from-beginning", dsn=dsn)
    fails(done, 1, 'no consumer group "x"', "see: durable-notify status")
    done = run("replay", "--group", "g", "--topic", "x", "--from-beginning", dsn=dsn)
    fails(done, 1, 'not subscribed to topic "x"', "see: durable-notify status")
    fails(run("dead-letters", "--group", "x", dsn=dsn), 1, 'no consumer group "x"')


def test_status(dsn: str, conn: psycopg.Connection[Any]) -> None:
    assert "No topics yet" in run("status", dsn=dsn).stderr
    assert json.loads(good("status", "--json", dsn=dsn)) == []
    good("publish", "t", dsn=dsn, given="1\n2\n3\n")
    good("publish", "unread", "1", dsn=dsn)
    good("consume", "t", "--group", "[red]g", "--max", "1", dsn=dsn)
    conn.execute("SELECT durable_notify.claim('[red]g', '{t}', 1, '1 hour')")
    found, unread = json.loads(good("status", "--json", dsn=dsn))
    oldest = datetime.fromisoformat(found.pop("oldest_unread"))
    assert (datetime.now(UTC) - oldest).total_seconds() < 60
    assert 0 <= found.pop("oldest_unread_seconds") < 60
    assert datetime.fromisoformat(found.pop("oldest_unsettled")) < oldest  # that which is leased
    assert 0 <= found.pop("oldest_unsettled_seconds") < 60
    assert found == {
        "topic": "t", "group": "[red]g", "last_id": 3, "lag": 2, "unread": 1, "exact": True,
        "deferred": 0, "retrying": 0, "parked": 0, "live_leases": 1, "leased": 1, "dead_letters": 0,
    }  # fmt: skip
    assert (unread["topic"], unread["group"], unread["lag"]) == ("unread", None, None)
    assert json.loads(good("status", "--json", "--exact", dsn=dsn))[0]["unread"] == 1
    fails(run("status", "--watch", "--exact", dsn=dsn), 2, "--exact")
    table = good("status", dsn=dsn)
    assert "[red]g" in table
    assert "oldest unsettled" in table


def test_dead_letters(dsn: str) -> None:
    assert "No dead letters" in run("dead-letters", dsn=dsn).stderr
    good("publish", "t", '{"a": 1}', "--key", "k", dsn=dsn)
    with Consumer(dsn, group="g", topics=["t"]) as consumer:
        for message in consumer:
            message.reject("[b]no such customer")
            break
    with psycopg.connect(dsn) as connection:
        (letter,) = Admin().dead_letters(connection)
        assert (letter.group, letter.topic, letter.payload) == ("g", "t", {"a": 1})
    (row,) = json.loads(good("dead-letters", "--json", "--group", "g", dsn=dsn))
    assert (row["group"], row["id"], row["key"], row["attempt"]) == ("g", 1, "k", 1)
    assert row["reason"] == "[b]no such customer"
    assert "[b]no such customer" in good("dead-letters", dsn=dsn)
    assert json.loads(good("status", "--json", dsn=dsn))[0]["dead_letters"] == 1


def test_a_table_of_very_many_is_short(dsn: str, conn: psycopg.Connection[Any]) -> None:
    """Only those that lag most, and nothing that lags not at all; --all and JSON have all."""
    topics = [f"t{number:03}" for number in range(103)]
    conn.execute("SELECT durable_notify.subscribe('g', %s)", [topics])
    conn.execute(
        "INSERT INTO durable_notify.outbox (topic, payload)"
        " SELECT t, '1' FROM unnest(%s::text[]) t",
        [topics[40:]],
    )
    table = good("status", dsn=dsn)
    assert "t040" in table
    assert "t039" not in table
    assert "status --all" in table
    table = good("status", "--all", dsn=dsn)
    assert "t039" in table
    assert "--all" not in table
    assert len(json.loads(good("status", "--json", dsn=dsn))) == len(topics)
    assert [row.topic for row in Admin().status(conn, limit=2)] == ["t040", "t041"]
