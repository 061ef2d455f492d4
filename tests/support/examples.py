"""Run the examples: as programs of their own, or as modules of the test's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.postgres import CHECKOUT

EXAMPLES = CHECKOUT / "examples"


def publish(dsn: str, topic: str, *payloads: Any) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(connection, topic, payloads)


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(text.encode()).fetchall()


def left(dsn: str, group: str) -> list[tuple[int | None, ...]]:
    """What a group has not handled: unread, deferred, leased, dead."""
    with psycopg.connect(dsn) as connection:
        return [
            (line.unread, line.deferred, line.leased, line.dead)
            for line in dn.Admin().status(connection)
            if line.group == group
        ]


class Program:
    """A program that runs beside the test; its lines can be waited for."""

    def __init__(self, *command: str | Path, dsn: str, cwd: Path) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"DURABLE_NOTIFY_DSN": dsn},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))

    def line(self, timeout: float = 20.0) -> str:
        return self._lines.get(timeout=timeout)

    def end(self) -> int:
        """Stop it as an operator does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextlib.contextmanager
def started(*command: str | Path, dsn: str, cwd: Path = EXAMPLES) -> Iterator[Program]:
    program = Program(*command, dsn=dsn, cwd=cwd)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@contextlib.contextmanager
def loaded(name: str, dsn: str) -> Iterator[ModuleType]:
    """The module of an example, which reads its DSN when it is imported."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DURABLE_NOTIFY_DSN", dsn)
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]
