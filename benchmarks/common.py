"""What every benchmark needs: a durable server of its own, rounds that take turns, and a report."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from durable_notify import schema
from durable_notify.embedded import Server

RESULTS = Path(__file__).parent / "results"

#: One message as it might be: about 120 bytes of JSON.
PAYLOAD = (
    "jsonb_build_object('order', i, 'customer', 'customer-' || i % 1000, 'amount', i * 1.5,"
    " 'note', repeat('x', 60))"
)


@contextlib.contextmanager
def server(**settings: str) -> Iterator[Server]:
    """A PostgreSQL with fsync and synchronous_commit on, in a temporary folder."""
    wanted = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "30min"}
    with tempfile.TemporaryDirectory(prefix="dn-bench-") as folder:
        Path(folder).chmod(0o755)
        with Server(Path(folder) / "pg", settings=wanted | settings) as running:
            schema.migrate(running.dsn())
            yield running


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
    """The place in the WAL now, or the bytes written since one."""
    if since is None:
        return connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()[0]
    query = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s::pg_lsn)::bigint"
    return connection.execute(query, (since,)).fetchone()[0]


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


@dataclass
class Figure:
    """A ratio of two things measured in turn, and what it should be."""

    name: str
    target: str
    ratios: list[float]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    def line(self) -> str:
        spread = f"{min(self.ratios):.3f} to {max(self.ratios):.3f}"
        return f"{self.name}: {self.median:.3f} (rounds: {spread}; wanted {self.target})"


def machine(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What the figures depend on."""
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "wal_sync_method")
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "psycopg": psycopg.__version__,
        "psycopg_impl": psycopg.pq.__impl__,
        **{
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]
            for name in names
        },
    }


def report(name: str, figures: list[Figure], about: dict[str, Any]) -> None:
    """Print the figures and keep them, with all rounds, as JSON."""
    for figure in figures:
        print(figure.line(), flush=True)
    RESULTS.mkdir(exist_ok=True)
    kept = {"about": about, "figures": [asdict(f) | {"median": f.median} for f in figures]}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=2) + "\n")
