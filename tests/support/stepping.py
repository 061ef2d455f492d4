"""Stop a session at any statement of the database half, the same one at every run.

`instrument` puts a call before each statement of each function in plpgsql. It does nothing until
a session is told, with `stop_at`, before which statement it is to be cancelled or to die: by a
signal from itself, which is what a timeout, an operator or the memory killer sends. `at_random`
has every session of the database be stopped at random statements.
"""

from __future__ import annotations

import re
from typing import Literal

from tests.support.schedule import Session

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
