"""The common parts of measurements: a durable server, workers, claims, rounds and a report."""

from __future__ import annotations

import asyncio
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
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psycopg

from durable_notify import schema
from durable_notify._version import __version__
from durable_notify.embedded import Server

RESULTS = Path(__file__).parent / "results"
#: Settings that simulate a disk whose flush takes 1.5 ms.
FLUSH = {"commit_delay": "1500", "commit_siblings": "0"}

_NOTE = "x" * 60
#: A typical message: about 120 bytes of JSON.
_PAYLOAD = f'{{"order": 17, "customer": "customer-17", "amount": 25.5, "note": "{_NOTE}"}}'
INSERT = f"INSERT INTO %s (topic, payload) VALUES ('orders', '{_PAYLOAD}')"

#: The same row without this library: the same columns, a primary key, no trigger.
PLAIN = """
    CREATE TABLE plain (
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(), topic text NOT NULL, key text,
        payload jsonb, data bytea, headers jsonb, deliver_at timestamptz, expires_at timestamptz,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)"""

#: A message like it, as an expression over i.
PAYLOAD = (
    "jsonb_build_object('order', i, 'customer', 'customer-' || i % 1000, 'amount', i * 1.5,"
    " 'note', repeat('x', 60))"
)
CLAIM = "SELECT token, id FROM durable_notify.claim(%s, '{orders}', %s)"
SETTLE = "SELECT durable_notify.settle(%s, %s)"


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
    """Return the transactions a second of so many clients that each run one statement."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement + ";\n")
        script.flush()
        command = [
            str(running.bindir / "pgbench"), "--no-vacuum", "--protocol=prepared",
            f"--client={clients}", "--jobs=1", f"--time={seconds:g}", f"--file={script.name}",
            running.dsn(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return float(found[1])


def fill(connection: psycopg.Connection[Any], topic: str, messages: int) -> None:
    """Publish that many messages, 100,000 a transaction."""
    for first in range(1, messages + 1, 100_000):
        connection.execute(
            "INSERT INTO durable_notify.outbox (topic, key, payload) "
            f"SELECT %s, 'key-' || i %% 1000, {PAYLOAD.replace('%', '%%')} "
            "FROM generate_series(%s::int, %s::int) AS i",
            (topic, first, min(first + 99_999, messages)),
        )


def wal_bytes(connection: psycopg.Connection[Any], since: str | None = None) -> Any:
    """Return the current position in the WAL, or the bytes written since one."""
    if since is None:
        return connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()[0]
    query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint"
    return connection.execute(query, (since,)).fetchone()[0]


def claims(connection: psycopg.Connection[Any], group: str, number: int) -> list[float]:
    """Return the seconds of each of some claims of 100 messages, which are settled in between."""
    times = []
    for _ in range(number):
        begun = time.perf_counter()
        rows = connection.execute(CLAIM, (group, 100)).fetchall()
        times.append(time.perf_counter() - begun)
        assert len(rows) == 100
        connection.execute(SETTLE, (rows[0][0], [row[1] for row in rows]))
    return times


def new_group(connection: psycopg.Connection[Any]) -> str:
    """Subscribe a new group, from the beginning of the topic; return its name."""
    group = uuid.uuid4().hex
    connection.execute("SELECT durable_notify.subscribe(%s, '{orders}', 'beginning')", (group,))
    return group


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


class Worker:
    """A process of ``benchmarks.workers``, which is ready once created, and reports its result."""

    def __init__(self, role: str, dsn: str, **options: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.workers", role, dsn]
        self._process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def said(self) -> Any:
        """Wait for its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended early; see its output above")
        return json.loads(line)

    def tell(self, word: str) -> Any:
        """Send it a word, and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.said()

    def end(self) -> None:
        """End it."""
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


# Within a worker


def say(what: Any) -> None:
    """Tell what started this process."""
    print(json.dumps(what), flush=True)


async def words() -> asyncio.StreamReader:
    """Return what it says to this process."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def asleep(consumer: Any) -> None:
    """Wait until the next message wakes a consumer."""
    while consumer.health().state != "sleeping":  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@dataclasses.dataclass
class Figure:
    """A ratio of two things measured in turn, or another number per round."""

    name: str
    target: str
    rounds: list[float]
    unit: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)


@dataclasses.dataclass
class Report:
    """The result of one measurement."""

    name: str
    about: dict[str, Any]
    figures: list[Figure]
    rates: dict[str, Any]

    def print(self) -> None:
        """Print a line per figure: the median of the rounds, and their spread."""
        for figure in self.figures:
            spread = f"{min(figure.rounds):.3f} to {max(figure.rounds):.3f}"
            target = f"; target {figure.target}" if figure.target else ""
            unit = f" {figure.unit}" if figure.unit else ""
            line = f"{self.name}: {figure.name}: {figure.median:.3f}{unit} ({spread}{target})"
            print(line, flush=True)

    def save(self) -> Path:
        """Write medians and spread to ``results/NAME.json``."""
        saved = dataclasses.asdict(self)
        saved["rates"] = summary(self.rates)
        for entry in saved["figures"]:
            entry.update(summary(entry["rounds"]))
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(saved, indent=1) + "\n")
        return path


def summary(values: Any) -> Any:
    """Replace each list of rounds by its median and spread; a round of samples is its median."""
    if isinstance(values, dict):
        return {name: summary(value) for name, value in values.items()}
    if not isinstance(values, list) or not values:
        return values
    if isinstance(values[0], dict):
        return {name: summary([each[name] for each in values]) for name in values[0]}
    if isinstance(values[0], list):
        values = [statistics.median(samples) for samples in values]
    return {
        "median": statistics.median(values), "lowest": min(values), "highest": max(values),
        "rounds": len(values),
    }  # fmt: skip


def machine(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return the settings and hardware that figures depend on."""
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
