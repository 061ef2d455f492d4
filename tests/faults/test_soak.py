"""Run 10, the soak: a steady rate, with consumers coming and going, for an hour by hand.

Asserted: nothing is lost or handled twice in effect, and in the second half of the run what the library
uses does not grow: the memory of a consumer and of a reader that stay, their connections and open
files, and the tables and indexes of all bookkeeping. The outbox grows by what is published, no more.

DURABLE_NOTIFY_SOAK=3600 for the long form. DURABLE_NOTIFY_SEED repeats its decisions.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durable_notify import schema
from durable_notify.embedded import Server
from tests.faults.auditor import audit_handled
from tests.faults.chance import SEED
from tests.programs import publisher
from tests.programs.consumer import Process
from tests.support.observe import outstanding
from tests.support.wait import eventually

pytestmark = pytest.mark.server

SECONDS = float(os.environ.get("DURABLE_NOTIFY_SOAK", "24"))
#: Bookkeeping: all tables but the outbox, what the run itself writes, and the audit of what people do.
SIZES = """
    SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c
     WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind IN ('r', 't')
       AND NOT c.relispartition AND c.relname <> 'audit'"""
DEAD = """
    SELECT COALESCE(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE schemaname = 'durable_notify'"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'durable_notify%'"


@dataclasses.dataclass(frozen=True)
class Sample:
    """What is in use at one time."""

    at: float
    memory: int
    files: int
    sessions: int
    bookkeeping: int
    dead: int
    published: int


def memory_of(pid: int) -> int:
    """Bytes of resident memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def sample(conn: psycopg.Connection[Any], staying: list[Process]) -> Sample:
    pids = [process.pid for process in staying]
    (row,) = conn.execute(
        f"SELECT ({SIZES})::bigint, ({DEAD})::bigint, ({SESSIONS})::int, (SELECT count(*) FROM business)".encode()
    ).fetchall()
    return Sample(
        time.monotonic(),
        sum(memory_of(pid) for pid in pids),
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        row[2], row[0], row[1], row[3],
    )  # fmt: skip


class Coming:
    """A consumer that comes and goes, politely or not."""

    def __init__(self, dsn: str, api: str, rng: random.Random) -> None:
        self.command = consumer(dsn, api)
        self.random = rng
        self.process: Process | None = None

    def turn(self) -> None:
        if self.process is None:
            self.process = Process(self.command)
        elif self.process.has_spoken():
            if self.random.random() < 0.5:
                self.process.kill()
            else:
                self.process.signal(signal.SIGTERM)
                assert self.process.ended() == 0
            self.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.process = None


def consumer(dsn: str, api: str) -> list[str]:
    options = ["records", "--lease", "2", "--concurrency", "3", "--group", "g"]
    return [sys.executable, "-m", "tests.programs.consumer", api, dsn, *options]


def median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
def test_nothing_grows(private_server: Server) -> None:
    print(f"DURABLE_NOTIFY_SEED={SEED}")
    rng = random.Random(SEED)
    dsn = private_server.dsn()
    schema.migrate(dsn)
    processes: list[Any] = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(publisher.DDL.encode())
        conn.execute("CREATE TABLE handled (grp text, message_id bigint, attempt int)")
        try:
            publishers = [
                Process([sys.executable, "-m", "tests.programs.publisher", api, dsn, SEED, first])
                for api, first in (("sync", "1"), ("async", "1000000000"))
            ]
            staying = [Process(consumer(dsn, api)) for api in ("sync", "async")]
            coming = [Coming(dsn, api, rng) for api in ("sync", "async")]
            processes = [*publishers, *staying, *coming]
            eventually(lambda: all(process.has_spoken() for process in staying), 60)
            samples = soak(conn, staying, coming, rng)
            for process in publishers:
                process.kill()
            eventually(lambda: outstanding(conn) == 0, 60)
            for process in staying:
                process.signal(signal.SIGTERM)
                assert process.ended() == 0
            business = {i for (i,) in conn.execute("SELECT message_id FROM business")}
            handled = [i for (i,) in conn.execute("SELECT message_id FROM handled")]
            assert set(handled) == business
            assert len(handled) == len(business), "twice in effect"
            for coming_and_going in coming:
                coming_and_going.close()
            audit_handled(dsn, {"g": business})
        finally:
            for process in processes:
                process.close()
    judge(samples)


def soak(
    conn: psycopg.Connection[Any], staying: list[Process], coming: list[Coming], rng: random.Random
) -> list[Sample]:
    """Let it run; a sample a hundredth of the time."""
    samples: list[Sample] = []
    began = time.monotonic()
    change = began
    while (now := time.monotonic()) < began + SECONDS:
        if now >= change:
            rng.choice(coming).turn()
            change = now + rng.uniform(0.5, 1.5) * max(1.0, SECONDS / 300)
        samples.append(sample(conn, staying))
        time.sleep(max(0.2, SECONDS / 100))
    return samples


def judge(samples: list[Sample]) -> None:
    """Compare the last quarter with the second: by then all is warm."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    for sample in samples[:: max(1, len(samples) // 20)]:
        print(sample)
    for name, slack in (
        ("memory", 8 << 20), ("files", 8), ("sessions", 12), ("bookkeeping", 2 << 20), ("dead", 20_000),
    ):  # fmt: skip
        before = median([getattr(sample, name) for sample in early])
        after = median([getattr(sample, name) for sample in late])
        print(f"{name}: {before} -> {after}")
        assert after <= before * 1.15 + slack, name


def test_growth_is_caught() -> None:
    """Planted: each thing that is watched, growing by half over a run."""
    good = Sample(0.0, 100 << 20, 40, 20, 40 << 20, 100_000, 0)
    judge([good] * 40)
    for name in ("memory", "files", "sessions", "bookkeeping", "dead"):
        grown = dataclasses.replace(good, **{name: getattr(good, name) * 2})
        with pytest.raises(AssertionError, match=name):
            judge([good] * 20 + [grown] * 20)
