"""Faults: planted into the SQL, at any of its statements, and in clocks.

`plant` changes a function's body, to see that the tests notice.

`instrument` puts a call before each statement of each function in plpgsql. It does nothing until a
session is told, with `stop_at`, before which statement it is to be cancelled or to die: by a signal
from itself, which is what a timeout, an operator or the memory killer sends. `at_random` has every
session of the database be stopped at random statements.

`DatabaseClock` and `ProcessClock` are clocks that are wrong.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.support.sessions import Session

Plant = Callable[[Session], None]

OLDER_SNAPSHOTS_PASSED_OVER = ("4294967295) < 2147483648", "4294967295) < 0")
"""For `older_snapshots`: no one is found that a partition is kept for."""


def plant(session: Session, function: str, *changes: tuple[str, str]) -> None:
    """Replace pieces of a function's body; each must be there exactly once."""
    query = "SELECT pg_get_functiondef(('durable_notify.' || %s)::regproc)"
    definition = session.value(query, function)
    for old, new in changes:
        assert definition.count(old) == 1, f"{old!r} stands not once in {function}"
        definition = definition.replace(old, new)
    session.run(definition)


def cursor_by_id(session: Session) -> None:
    """Read on with `id > last`: never look for stragglers."""
    plant(session, "_stragglers", ("RETURN QUERY", "RETURN; RETURN QUERY"))


def stragglers_by_list_alone(session: Session) -> None:
    """Take "was running" to mean xip alone, without what is at or past xmax."""
    past = "o.xid >= pg_catalog.pg_snapshot_xmax(seen)"
    plant(session, "_stragglers", (past, f"false AND {past}"))


def stragglers_of_an_ordinary_claim(session: Session) -> None:
    """Take a claim for an ordinary one without a look for stragglers."""
    late = "pos.s1 IS NULL AND (\n"
    plant(session, "claim", (late, f"false AND {late}"))


def stragglers_of_many_topics(session: Session) -> None:
    """Leave out a topic in which nothing is new but stragglers."""
    plant(
        session,
        "_topics_to_claim",
        ("AND o.xid >= pg_catalog.pg_snapshot_xmax(pos.s0)", "AND false"),
        ("OR pg_catalog.pg_snapshot_xmin", "OR false AND pg_catalog.pg_snapshot_xmin"),
    )


def snapshot_before_the_lock(session: Session) -> None:
    """Take the claim's snapshot before the group's lock, not under it."""
    lock = "SELECT g.id, pg_catalog.pg_try_advisory_xact_lock"
    snapshot = "now_snapshot := pg_catalog.pg_current_snapshot();"
    plant(session, "claim", (f"{snapshot}\n    IF", "IF"), (lock, f"{snapshot} {lock}"))


def position_before_the_lock(session: Session) -> None:
    """Read where the group stands before the group's lock; good for one topic."""
    lock = "SELECT g.id, pg_catalog.pg_try_advisory_xact_lock"
    early = """PERFORM pg_catalog.set_config('test.place', (
                   SELECT q::text FROM durable_notify.position q
                     JOIN durable_notify.subscription s ON s.id = q.subscription_id
                     JOIN durable_notify.consumer_group g ON g.id = s.group_id
                    WHERE g.name = group_name ORDER BY q.seq DESC LIMIT 1), true);"""
    plant(session, "claim", (lock, early + lock))
    read = "pos := seen.pos;"
    use = "pos := pg_catalog.current_setting('test.place')::durable_notify.position;"
    plant(session, "claim", (read, use))


def last_id_before_the_lock(session: Session) -> None:
    """Look up the last id drawn before the group's lock, and so before the snapshot."""
    lock = "SELECT g.id, pg_catalog.pg_try_advisory_xact_lock"
    last = "(SELECT d.last_value FROM durable_notify.outbox_id_seq d)"
    early = f"PERFORM pg_catalog.set_config('test.last', {last}::text, true);"
    use = "pg_catalog.current_setting('test.last')::bigint"
    plant(session, "claim", (last, use), (lock, early + lock))


def fence_by_plain_read(session: Session) -> None:
    """Settle after looking at the lease without locking it."""
    plant(session, "settle", (" FOR KEY SHARE;", ";"))


def takeover_that_waits(session: Session) -> None:
    """Wait for an open settle, which a claim should skip."""
    plant(session, "_reclaim_leases", ("FOR UPDATE OF l SKIP LOCKED", "FOR UPDATE OF l"))


How = Literal["cancel", "terminate"]

_STEP = """
    CREATE SCHEMA stepping;
    CREATE TABLE stepping.chance (p double precision NOT NULL, how text NOT NULL);
    INSERT INTO stepping.chance VALUES (0, 'cancel');
    CREATE FUNCTION stepping.signal(how text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF how = 'cancel' THEN
            PERFORM pg_catalog.pg_cancel_backend(pg_catalog.pg_backend_pid());
        ELSE
            PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid());
        END IF;
        PERFORM pg_catalog.pg_sleep(10);  -- the signal ends this
    END $$;
    CREATE FUNCTION stepping.step() RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        plan text := pg_catalog.current_setting('stepping.plan', true);  -- how, at which statement
        likely record;
    BEGIN
        IF plan <> '' THEN
            IF pg_catalog.nextval('pg_temp.steps') = pg_catalog.split_part(plan, ' ', 2)::bigint THEN
                PERFORM stepping.signal(pg_catalog.split_part(plan, ' ', 1));
            END IF;
            RETURN true;
        END IF;
        SELECT * INTO likely FROM stepping.chance;
        IF pg_catalog.random() < likely.p THEN
            PERFORM stepping.signal(likely.how);
        END IF;
        RETURN true;
    END $$;
    GRANT USAGE ON SCHEMA stepping TO PUBLIC;
    GRANT SELECT ON stepping.chance TO PUBLIC;"""
_FUNCTIONS = """
    SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid) FROM pg_proc p
      JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
     WHERE p.pronamespace = 'durable_notify'::regnamespace ORDER BY 1"""
_BEFORE = re.compile(r"(;|\bTHEN|\bLOOP|\bELSE|\bBEGIN)\s*$")
_NO_STATEMENT = re.compile(r"\s*(END|ELSIF|ELSE|WHEN|EXCEPTION)\b|\s*(--.*)?$")


def instrument(session: Session) -> int:
    """Put a step before every statement; returns how many there are."""
    session.run(_STEP)
    steps = 0
    for name, definition in session.run(_FUNCTIONS):
        head, body, end = _parts(definition)
        stepped, number = _stepped(body)
        assert number, f"no statement found in {name}"
        session.run(head + stepped + end)
        steps += number
    return steps


def stop_at(session: Session, number: int, how: How = "cancel") -> None:
    """Stop this session at a statement counted from now on, 1 being the next."""
    session.run("CREATE TEMP SEQUENCE IF NOT EXISTS steps")  # counts what is rolled back, too
    session.run("SELECT setval('pg_temp.steps', 1, false)")
    session.run(f"SET stepping.plan = '{how} {number}'")


def passed(session: Session) -> int:
    """How many statements were reached since `stop_at`."""
    return int(session.value("SELECT last_value - 1 + is_called::int FROM pg_temp.steps"))


def at_random(session: Session, chance: float, how: How = "cancel") -> None:
    """Stop all sessions at statements by chance."""
    session.run("UPDATE stepping.chance SET p = %s, how = %s", chance, how)


def _parts(definition: str) -> tuple[str, str, str]:
    head, tag, rest = re.split(r"(\$\w*\$)", definition, maxsplit=1)
    body, _, end = rest.rpartition(tag)
    begin = re.search(r"^ *BEGIN$", body, re.MULTILINE)
    assert begin is not None, definition
    return head + tag + body[: begin.end()], body[begin.end() :], tag + end


def _stepped(body: str) -> tuple[str, int]:
    lines: list[str] = []
    number = 0
    ready = True
    for line in body.split("\n"):
        if ready and not _NO_STATEMENT.match(line):
            # Not PERFORM, which would set FOUND and ROW_COUNT.
            lines.append("ASSERT stepping.step();")
            number += 1
        lines.append(line)
        code = line.split("--")[0]
        if code.strip():
            ready = _BEFORE.search(code) is not None
    return "\n".join(lines), number


_FAKE = """
    CREATE SCHEMA clocks;
    GRANT USAGE ON SCHEMA clocks TO PUBLIC;
    CREATE TABLE clocks.setting (off interval NOT NULL, frozen timestamptz);
    GRANT SELECT ON clocks.setting TO PUBLIC;
    INSERT INTO clocks.setting VALUES ('0', NULL);
    CREATE FUNCTION clocks.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        RETURN (SELECT COALESCE(s.frozen, pg_catalog.clock_timestamp() + s.off) FROM clocks.setting s);
    END $$;"""
_WITH_A_CLOCK = """
    SELECT pg_get_functiondef(p.oid) FROM pg_proc p
     WHERE p.pronamespace = 'durable_notify'::regnamespace AND p.prosrc LIKE '%clock_timestamp()%'"""
_DEFAULTS = """
    SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s',
                  d.adrelid::regclass, a.attname, pg_get_expr(d.adbin, d.adrelid))
      FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
      JOIN pg_class c ON c.oid = d.adrelid AND c.relnamespace = 'durable_notify'::regnamespace
     WHERE pg_get_expr(d.adbin, d.adrelid) LIKE '%clock_timestamp()%'"""


class DatabaseClock:
    """The clock of the database half, in the hands of a test."""

    def __init__(self, session: Session) -> None:
        self._session = session
        session.run(_FAKE)
        functions, defaults = session.column(_WITH_A_CLOCK), session.column(_DEFAULTS)
        assert functions
        assert defaults
        for statement in functions:
            session.run(
                statement.replace("pg_catalog.clock_timestamp()", "clocks.clock_timestamp()")
            )
        for statement in defaults:
            session.run(statement.replace("clock_timestamp()", "clocks.clock_timestamp()"))

    def set(self, off: str) -> None:
        """Have it differ from the true one by that much."""
        self._session.run("UPDATE clocks.setting SET off = %s, frozen = NULL", off)

    def freeze(self) -> None:
        """Stop it, so that a moment is seen twice."""
        self._session.run("UPDATE clocks.setting SET frozen = pg_catalog.clock_timestamp() + off")


class ProcessClock:
    """The clock that a process on this machine sees; ``set`` moves it while the process runs.

    By libfaketime (the package faketime of Debian); the monotonic clock, by which processes
    wait, is left as it is.
    """

    LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        self.set(0)

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.rename(self._file)

    @property
    def environment(self) -> dict[str, str]:
        assert self.LIBRARY is not None
        return os.environ | {
            "LD_PRELOAD": str(self.LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def patched(module: str, seconds: int) -> list[str]:
    """A Python program whose own clock is wrong, where there is no libfaketime."""
    program = (
        "import runpy, sys, time; true = time.time; "
        f"time.time = lambda: true() + {seconds}; time.time_ns = lambda: int(time.time() * 1e9); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program]
