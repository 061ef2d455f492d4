"""Peers in other languages: each client is a program, in Go or JavaScript, beside this module.

``PROGRAM ROLE ADDRESS ...`` answers with lines of JSON. Times are CLOCK_MONOTONIC in nanoseconds.

- ``prepare ADDRESS`` creates an empty queue; answers true.
- ``batches|singles|slowly|fill ADDRESS MESSAGES`` is the method of `base.Publishing`; answers its
  times.
- ``consume ADDRESS MEASURE CONCURRENCY`` answers true once it is ready, and waits for a line. It
  consumes until the next line, and says how many messages it has handled, at most every 5 ms. When
  every acknowledgement is committed, it answers with what `base.Tally.report` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers import install
from benchmarks.peers.base import Publishing, Tally, Times
from benchmarks.peers.clients.postgres import PostgresPeer

LONGEST = 1 << 24  # bytes in a line


class _Publisher(Publishing):
    def __init__(self, peer: Program) -> None:
        self._peer = peer

    async def batches(self, messages: int) -> Times:
        return await self._peer.ask("batches", messages)

    async def singles(self, messages: int) -> Times:
        return await self._peer.ask("singles", messages)

    async def slowly(self, messages: int) -> list[Times]:
        return await self._peer.ask("slowly", messages)

    async def fill(self, messages: int) -> None:
        await self._peer.ask("fill", messages)


class Program(PostgresPeer):
    """A peer whose client is a program."""

    #: The program and its first arguments.
    command: ClassVar[tuple[Path, ...]]

    @classmethod
    def missing(cls) -> str | None:
        absent = [str(each) for each in cls.command if not each.exists()]
        return f"{absent[0]} was not installed" if absent else None

    async def start(self, *arguments: object, errors: int | None = None) -> Process:
        return await asyncio.create_subprocess_exec(
            *self.command, *map(str, arguments),
            stdin=PIPE, stdout=PIPE, stderr=errors, limit=LONGEST,
        )  # fmt: skip

    async def ask(self, role: str, *arguments: object) -> Any:
        """Run a role; return its answer."""
        process = await self.start(role, self.address, *arguments, errors=PIPE)
        out, errors = await process.communicate()
        if process.returncode:
            said = " ".join(errors.decode(errors="replace").split())
            raise RuntimeError(f"its program ended with {process.returncode}: {said[:500]}")
        return json.loads(out)

    async def prepare(self) -> None:
        await self.ask("prepare")

    @contextlib.asynccontextmanager
    async def publisher(self) -> AsyncIterator[Publishing]:
        yield _Publisher(self)

    async def open(self, tally: Tally, concurrency: int) -> None:
        self._consumer = await self.start("consume", self.address, tally.measure, concurrency)
        await self._answer()

    async def consume(self, tally: Tally, concurrency: int) -> None:
        del concurrency
        stopping = asyncio.create_task(self._stop(tally))
        self._go()
        while isinstance(answer := await self._answer(), int):
            tally.handled = answer
        tally.take(answer)
        await stopping
        await self._consumer.wait()

    async def _stop(self, tally: Tally) -> None:
        await tally.finished.wait()
        self._go()

    def _go(self) -> None:
        assert self._consumer.stdin is not None
        self._consumer.stdin.write(b"\n")

    async def _answer(self) -> Any:
        assert self._consumer.stdout is not None
        if line := await self._consumer.stdout.readline():
            return json.loads(line)
        raise RuntimeError(f"its program ended with {await self._consumer.wait()}")


class River(Program):
    """In Go: see river/main.go."""

    command = (install.BIN / "river",)
    packages: ClassVar[tuple[str, ...]] = ("riverqueue/river", "jackc/pgx/v5")
    settings: ClassVar[dict[str, Any]] = {
        "MaxWorkers": "1,000; 100 for consume_await",
        "FetchCooldown": "2 ms",
        "FetchPollInterval": "20 ms",
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 50_000,
        "publish_single": 1_200,
        "consume": 20_000,
        "consume4": 20_000,
        "consume_await": 10_000,
        "wake": 60,
    }

    @classmethod
    def versions(cls) -> dict[str, str]:
        required = (install.CLIENTS / "river" / "go.mod").read_text()
        return dict(re.findall(rf"github.com/({'|'.join(cls.packages)}) v(\S+)", required))


class _Script(Program):
    @classmethod
    def versions(cls) -> dict[str, str]:
        installed = install.SCRIPTS / "node_modules"
        return {
            each: json.loads((installed / each / "package.json").read_text())["version"]
            for each in cls.packages
        }


class PgBoss(_Script):
    """In JavaScript: see node/pg_boss.mjs."""

    command = (install.NODE, install.SCRIPTS / "pg_boss.mjs")
    packages: ClassVar[tuple[str, ...]] = ("pg-boss", "pg", "node")
    settings: ClassVar[dict[str, Any]] = {
        "batchSize": "1,000; 50 for consume_await",
        "localConcurrency": 2,
        "burstWhenBatchFull": True,
        "orderByCreatedOn, priority": False,
        "notify, useListenNotify": "on for wake only",
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 30_000,
        "publish_single": 800,
        "consume": 30_000,
        "consume4": 30_000,
        "consume_await": 10_000,
        "wake": 60,
    }


class GraphileWorker(_Script):
    """In JavaScript: see node/graphile_worker.mjs."""

    command = (install.NODE, install.SCRIPTS / "graphile_worker.mjs")
    packages: ClassVar[tuple[str, ...]] = ("graphile-worker", "pg", "node")
    settings: ClassVar[dict[str, Any]] = {
        "concurrentJobs": "24; 100 for consume_await",
        "localQueue.size": 1000,
        "completeJobBatchDelay": 0,
        "maxPoolSize": 25,
    }
    messages: ClassVar[dict[str, int]] = {
        "publish_batch": 30_000,
        "publish_single": 800,
        "consume": 30_000,
        "consume4": 30_000,
        "consume_await": 15_000,
        "wake": 60,
    }
