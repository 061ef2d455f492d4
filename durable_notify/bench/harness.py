"""What every measurement needs: a durable server, worker processes, rounds and a report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg

from .. import schema
from .._version import __version__
from ..embedded import Server

__all__ = [
    "FLUSH", "INSERT", "PLAIN", "Figure", "Report", "Worker", "machine", "pgbench", "server",
    "timed",
]  # fmt: skip

#: Settings that stand for a disk whose flush takes 1.5 ms.
FLUSH = {"commit_delay": "1500", "commit_siblings": "0"}

_NOTE = "x" * 60
#: One message as it might be: about 120 bytes of JSON.
_PAYLOAD = f'{{"order": 17, "customer": "customer-17", "amount": 25.5, "note": "{_NOTE}"}}'
INSERT = f"INSERT INTO %s (topic, payload) VALUES ('orders', '{_PAYLOAD}')"  # noqa: S608 - of constants

#: The same row without this library: the same columns, a primary key, no trigger.
PLAIN = """
    CREATE TABLE plain (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(), topic text NOT NULL, key text,
        payload jsonb, data bytea, headers jsonb, deliver_at timestamptz, expires_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"""


@contextlib.contextmanager
def server(**settings: str) -> Iterator[Server]:
    """Run a PostgreSQL with fsync and synchronous_commit on, in a temporary folder, migrated."""
    wanted = {
        "shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min",
        "max_connections": "300",
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dn-bench-") as folder:
        Path(folder).chmod(0o755)
        with Server(Path(folder) / "pg", settings=wanted | settings) as running:
            schema.migrate(running.dsn())
            yield running


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def pgbench(running: Server, statement: str, clients: int, seconds: float) -> float:
    """Return the transactions a second of so many clients that each do one statement."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement + ";\n")
        script.flush()
        command = [
            str(running.bindir / "pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}", "--jobs=1", f"--time={seconds:g}", f"--file={script.name}",
            running.dsn(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return float(found[1])


class Worker:
    """A process of ``durable_notify.bench.workers``: ready when made, and asked for its result."""

    def __init__(self, role: str, dsn: str, **options: Any) -> None:
        command = [sys.executable, "-m", "durable_notify.bench.workers", role, dsn]
        self._process = subprocess.Popen(  # noqa: S603
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said()

    def said(self) -> Any:
        """Wait for what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended early; see its output above")
        return json.loads(line)

    def tell(self, word: str) -> Any:
        """Tell it something, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.said()

    def end(self) -> None:
        """Have it end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@dataclasses.dataclass
class Figure:
    """A ratio of two things measured in turn, or another number of which there is one a round."""

    name: str
    target: str
    rounds: list[float]
    unit: str = ""

    @property
    def median(self) -> float:
        """The middle one of the rounds."""
        return statistics.median(self.rounds)


@dataclasses.dataclass
class Report:
    """What one measurement has found."""

    name: str
    about: dict[str, Any]
    figures: list[Figure]
    rates: dict[str, Any]

    def save(self, folder: Path) -> Path:
        """Keep it as JSON, with every round."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = dataclasses.asdict(self)
        for figure, entry in zip(self.figures, kept["figures"], strict=True):
            entry["median"] = figure.median
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(kept, indent=2) + "\n")
        return path


def machine(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return what figures depend on."""
    names = (
        "server_version", "fsync", "synchronous_commit", "commit_delay", "commit_siblings",
        "shared_buffers", "max_wal_size", "wal_sync_method",
    )  # fmt: skip
    found = {}
    for name in names:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        found[name] = row[0] if row else None
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "durable_notify": __version__,
        "psycopg": psycopg.__version__,
        "psycopg_impl": psycopg.pq.__impl__,
        **found,
    }
