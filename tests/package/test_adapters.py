"""A program that has changed how psycopg adapts values, for all its connections.

Asserted: all results are the same, and a handler's own connection adapts as the program says.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psycopg
import pytest

import durable_notify as dn

PROGRAM = """
import decimal, enum, json, os, sys, logging
import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.types.json import set_json_dumps, set_json_loads

if sys.argv[1] == "after":
    import durable_notify

class Odd(Loader):
    def load(self, data):
        return ("odd", bytes(data))

class OddBinary(Odd):
    format = psycopg.pq.Format.BINARY

class OddDumper(Dumper):
    oid = psycopg.adapters.types["json"].oid

    def dump(self, obj):
        return b'"odd"'

def loads(text):
    return ("odd", text)

if sys.argv[1] != "never":
    for name in ("timestamptz", "jsonb", "json", "int8", "int4", "text", "float8", "bool", "bytea", "interval", "_text"):
        oid = psycopg.adapters.types.get(name.removeprefix("_"))
        oid = oid.array_oid if name.startswith("_") else oid.oid
        psycopg.adapters.register_loader(oid, Odd)
        psycopg.adapters.register_loader(oid, OddBinary)
    for kind in (list, int, float, bytes):
        psycopg.adapters.register_dumper(kind, OddDumper)
    set_json_loads(loads)
    set_json_dumps(lambda value: '"odd"')

from tests.support import everything
from durable_notify import schema

logging.disable(logging.CRITICAL)
dsn = sys.argv[2]
schema.migrate(dsn)
assert len(schema.snapshot(dsn)) > 1000
print(json.dumps(everything.run(dsn), default=repr))
"""


def outcome(when: str, dsn: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, when, dsn], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def usual(server: Any) -> Any:
    with server.database() as name:
        return outcome("never", server.dsn(name))


@pytest.mark.parametrize("when", ["before", "after"])
def test_all_of_it(empty_dsn: str, usual: Any, when: str) -> None:
    """Whether this library was imported before the adapters were changed, or after that."""
    assert outcome(when, empty_dsn) == usual


class Odd(psycopg.adapt.Loader):
    def load(self, data: Any) -> str:
        return f"odd {bytes(data).decode()}"


def test_a_handlers_connection_is_the_programs(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = psycopg.adapt.AdaptersMap(psycopg.adapters)
    changed.register_loader("text", Odd)
    dn.Publisher().publish(conn, "t", 1)
    monkeypatch.setattr(psycopg.postgres, "adapters", changed)
    found = []

    def handle(message: dn.Message) -> None:
        with message.transaction() as own:
            found.append(own.execute("SELECT 'x'::text").fetchone())

    dn.Consumer(dsn, group="g", topics=["t"], until_empty=True, maintenance=False).run(handle)
    assert found == [("odd x",)]
