"""The command line with hostile arguments, and what it shows of what others have written."""

from __future__ import annotations

import json
import os
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import durable_notify as dn
from durable_notify.cli import tables
from tests.security.hostile import any_name, fuzz, names, payloads, same, texts
from tests.support.cli import invoke, on_a_terminal, run
from tests.support.observe import value

Connection = psycopg.Connection[Any]
ATTACKS = ("\x1b]0;pwned\x07", "\x1b[31m", "\x9b31m", "\x08", "\r", "\u202e", "\u2066")


def done(*arguments: str, dsn: str) -> str | None:
    """The output of what succeeds; else None, and the failure is a plain one."""
    status, out, err = invoke(*arguments, dsn=dsn)
    assert status in (0, 1, 2)
    assert "Traceback" not in err
    assert "unexpected" not in err
    if status == 0:
        return out
    assert out == ""
    assert sum(line.startswith("error: ") for line in err.split("\n")) == 1, err
    assert not any(attack in err for attack in ATTACKS)
    return None


def plain(text: str) -> bool:
    """Whether click takes it for an argument and not for an option."""
    return not text.startswith("-")


@fuzz(60)
@given(
    topic=any_name.filter(plain), payload=st.one_of(payloads, texts), key=any_name,
    header=any_name, words=texts,
)  # fmt: skip
def test_publish(
    dsn: str, conn: Connection, topic: str, payload: Any, key: str, header: str, words: str
) -> None:
    before = value(conn, "SELECT count(*) FROM durable_notify.outbox")
    as_json = json.dumps(payload)
    headers = f"--header={header}={words}"
    printed = done("publish", f"--key={key}", headers, "--", topic, as_json, dsn=dsn)
    if printed is None:
        assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == before
        return
    row = conn.execute(
        "SELECT topic, key, payload::text, headers FROM durable_notify.outbox WHERE id = %s",
        [int(printed)],
    ).fetchone()
    assert row is not None
    name, _, text = f"{header}={words}".partition("=")
    assert (row[0], row[1], row[3]) == (topic, key, {name: text})
    assert same(json.loads(row[2]), json.loads(as_json))


@fuzz(20)
@given(name=any_name, other=texts)
def test_other_commands(dsn: str, conn: Connection, name: str, other: str) -> None:
    conn.execute("CREATE TABLE IF NOT EXISTS canary ()")
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    for arguments in (
        ["group", "pause", "--", name],
        ["group", "rename", "--", "g", name],
        ["group", "rename", "--", name, "g"],
        ["group", "configure", f"--retry-base={other}", "--", name],
        ["group", "delete", "--yes", "--", name],
        ["dead-letters", "list", f"--group={name}", f"--topic={other}", f"--key={other}"],
        ["dead-letters", "redrive", "--group=g", f"--error={other}", f"--why={name}"],
        ["dead-letters", f"--since={other}"],
        ["audit", f"--group={other}"],
        ["seek", "--group=g", "--topic=t", "--now", f"--why={other}", "--yes"],
        ["replay-job", "start", "--group=g", "--topic=t", f"--path={other}", f"--payload={name}"],
        ["wakeups", "--", name, other],
        ["wakeups", "--", name, "always"],
        ["status", "--json"],
        ["--dsn", other, "status"],
        [other],
        ["publish", "t", other, name],
    ):
        done(*arguments, dsn=dsn)
    assert value(conn, "SELECT count(*) FROM canary") == 0


def test_processes(dsn: str, conn: Connection) -> None:
    """A few real ones: arguments that are no UTF-8 are lone surrogates to Python."""
    bad = os.fsdecode(b"a\xff")
    for arguments in (
        ["publish", "t", bad, "--text"], ["publish", "t", "1", "--header", f"{bad}={bad}"],
        ["--dsn", bad, "status"], ["consume", "t", "--group", bad], ["read", "t", "--after", bad],
    ):  # fmt: skip
        ended = run(*arguments, dsn=dsn)
        assert ended.returncode in (1, 2), arguments
        assert "unexpected" not in ended.stderr, ended.stderr
    assert value(conn, "SELECT count(*) FROM durable_notify.outbox") == 0


HOSTILE = "[red]x[/] [/nothing] :skull: {0} %s " + "".join(f"{attack}!" for attack in ATTACKS)


@pytest.fixture
def written(dsn: str, conn: Connection) -> str:
    """Write hostile text into each thing that is shown; returns the DSN."""
    key = "[red]k[/] \u202e :skull:"
    number = dn.Publisher().publish(
        conn, "[red]\u202et", {"a": HOSTILE}, key=key, headers={"h": HOSTILE}
    )
    group = "[red]g[/] \u202e"
    consumer = dn.Consumer(dsn, group=group, topics=["[red]\u202et"], until_empty=True)
    consumer.run(lambda message: message.reject(HOSTILE, ValueError(HOSTILE)))
    dn.Admin().redrive(conn, group, everything=True, why=HOSTILE)
    consumer = dn.Consumer(dsn, group=group, topics=["[red]\u202et"], until_empty=True)
    consumer.run(lambda message: message.reject(HOSTILE, ValueError(HOSTILE)))
    conn.execute('SELECT durable_notify.configure(%s, \'{"order_by": "strict"}\')', [group])
    with conn.transaction():
        conn.execute("SELECT set_config('application_name', %s, true)", [HOSTILE[:60]])
        dn.Admin().seek(conn, group, "[red]\u202et", now=True, why=HOSTILE)
    return str(number)


SHOWS = (
    ["status"], ["group", "list"], ["dead-letters"], ["audit"], ["dead-letters", "show", "ID"],
)  # fmt: skip


@pytest.mark.parametrize("arguments", SHOWS, ids=" ".join)
def test_what_is_shown_is_text(dsn: str, written: str, arguments: list[str]) -> None:
    """On a terminal, which acts on escapes: none of others gets there, and their markup is text."""
    arguments = [written if word == "ID" else word for word in arguments]
    status, shown = on_a_terminal(b"", *arguments, dsn=dsn)
    assert status == 0, shown
    assert not any(attack in shown.replace("\r\n", "\n") for attack in ATTACKS), repr(shown)
    assert "[red]" in "".join(shown.split())


def test_json_is_as_safe(dsn: str, written: str) -> None:
    status, out, _ = invoke("dead-letters", "--json", dsn=dsn)
    assert status == 0
    assert not any(attack in out for attack in ATTACKS)
    assert json.loads(out)[0]["reason"] == HOSTILE


def test_an_escape_on_a_terminal_would_be_noticed(
    dsn: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "shown", str)
    status, out, _ = invoke("dead-letters", dsn=dsn)
    assert status == 0
    assert any(attack in out for attack in ATTACKS)


@fuzz(100)
@given(text=st.one_of(names, texts))
def test_text_is_shown_without_control_characters(text: str) -> None:
    from durable_notify.cli.params import json_line, shown

    for line in (shown(text), json_line({text: text})):
        assert not any((ord(c) < 0x20 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 for c in line)
        assert not set(line) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
