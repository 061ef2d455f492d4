"""Clocks that are wrong: the database's, and those of processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.schedule import Session

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
_FUNCTIONS = """
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
        functions, defaults = session.column(_FUNCTIONS), session.column(_DEFAULTS)
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
        """Stop it, as where a moment comes again."""
        self._session.run("UPDATE clocks.setting SET frozen = pg_catalog.clock_timestamp() + off")


class ProcessClock:
    """The clock that a process on this machine sees; ``set`` moves it while the process runs.

    By libfaketime (the package faketime of Debian); time that only ever goes on, by which processes
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
