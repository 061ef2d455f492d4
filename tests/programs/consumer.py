"""Consumers as processes of their own, to be killed.

As a program (``python -m tests.programs.consumer``) it runs a consumer that prints a JSON object
a message when its handler begins, and then does what its manner says:

- ``acks``: acknowledges.
- ``acks some``: acknowledges two messages, then never settles another.
- ``waits``: acknowledges once it has read a line from its standard input; it says when it is told
  to stop.
- ``dies at the second``: returns, and the process is killed as its second handler begins.
- ``is cut short``: never settles; the event loop ends under it as its first handler begins.
- ``records``: writes to the table ``handled`` and acknowledges, in one transaction.
- ``records late``: the same, but acknowledges once it has read a line from its standard input; it
  says when that is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.api import Api
from tests.support.postgres import CHECKOUT
from tests.support.wait import BOUND

STOPPING = {"stopping": True}


class Process:
    """A consumer in a process of its own."""

    def __init__(self, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT,
            env=environment,
        )  # fmt: skip
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.handled_in_all: list[dict[str, Any]] = []

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def handled(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many more handlers have begun; what they got."""
        new = [json.loads(self._next_line()) for _ in range(number)]
        self.handled_in_all += new
        return new

    def stopping(self) -> None:
        """Wait until it has noticed a signal."""
        assert json.loads(self._next_line()) == STOPPING

    def _next_line(self) -> str:
        try:
            line = self._lines.get(timeout=BOUND)
        except queue.Empty:
            self._abort()
            raise
        assert line is not None, "it ended"
        return line

    def _abort(self) -> None:
        """End it, and have it say where it hangs."""
        self._popen.send_signal(signal.SIGABRT)
        self._popen.wait()

    def has_spoken(self) -> bool:
        """Whether it has printed something that the test has not read yet."""
        return not self._lines.empty()

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def pid(self) -> int:
        return self._popen.pid

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def say(self, text: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{text}\n")
        self._popen.stdin.flush()

    def ended(self) -> int:
        """Wait until it has ended; its exit status."""
        try:
            status = self._popen.wait(BOUND)
        except subprocess.TimeoutExpired:
            self._abort()
            raise
        self._drain()
        return status

    def kill(self) -> None:
        """End it hard, if it runs, and read what it had printed."""
        self._popen.kill()
        self._popen.wait()
        self._drain()

    def _drain(self) -> None:
        self._reader.join()
        while not self._lines.empty():
            line = self._lines.get()
            # SIGKILL may have cut the last line.
            if line is not None and line.endswith("\n"):
                self.handled_in_all.append(json.loads(line))

    def close(self) -> None:
        self.kill()
        for stream in (self._popen.stdin, self._popen.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


@contextmanager
def consumer_process(api: Api, dsn: str, manner: str, *options: str) -> Iterator[Process]:
    """Run a consumer in a process of its own; it is killed at the end if it runs."""
    module = [sys.executable, "-m", "tests.programs.consumer"]
    process = Process([*module, api.name, dsn, manner, *options])
    try:
        yield process
    finally:
        process.close()


class Program:
    """What the process does."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._manner, self._dsn, self._group = args.manner, args.dsn, args.group
        kind = dn.Consumer if args.api == "sync" else dn.AsyncConsumer
        self._consumer: Any = kind(
            args.dsn, group=args.group, topics=["t"], poll_interval=None, lease=args.lease
        )
        self._concurrency = args.concurrency
        self._mutex = threading.Lock()
        self._begun = 0
        self._cut = asyncio.Event()
        if self._manner == "waits":
            self._say_when_told()

    def run(self) -> None:
        self._consumer.run(self._handle, concurrency=self._concurrency)

    async def arun(self) -> None:
        work = asyncio.ensure_future(
            self._consumer.run(self._ahandle, concurrency=self._concurrency)
        )
        if self._manner == "is cut short":
            await self._cut.wait()
            sys.exit(7)  # asyncio.run() cancels whatever there is
        await work

    def _say_when_told(self) -> None:
        """Have the consumer say, once, that it is told to stop; its signals' handlers call stop()."""
        stop = self._consumer.stop

        def say_and_stop() -> None:
            self._consumer.stop = stop
            stop()
            os.write(1, f"{json.dumps(STOPPING)}\n".encode())

        self._consumer.stop = say_and_stop

    def _begin(self, message: Any) -> int:
        with self._mutex:
            self._begun += 1
            print(json.dumps({"id": message.id, "attempt": message.attempt}), flush=True)
            if self._manner == "dies at the second" and self._begun == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return self._begun

    @contextmanager
    def _refusals(self, message: Any) -> Iterator[None]:
        try:
            yield
        except dn.errors.SettleError as error:
            if self._manner == "records late":
                print(json.dumps({"id": message.id, "refused": type(error).__name__}), flush=True)
            raise

    def _record(self, message: Any) -> tuple[str, list[Any]]:
        return "INSERT INTO handled VALUES (%s, %s, %s)", [self._group, message.id, message.attempt]

    def _handle(self, message: dn.Message) -> None:
        number = self._begin(message)
        match self._manner:
            case "dies at the second":
                return
            case "waits":
                sys.stdin.readline()
            case "acks some" if number > 2:
                threading.Event().wait()
            case "records" | "records late":
                with self._refusals(message), psycopg.connect(self._dsn, connect_timeout=5) as mine:
                    mine.execute(*self._record(message))
                    if self._manner == "records late":
                        sys.stdin.readline()
                    message.ack(mine)
                return
        message.ack()

    async def _ahandle(self, message: dn.AsyncMessage) -> None:
        number = self._begin(message)
        match self._manner:
            case "dies at the second":
                return
            case "waits":
                await asyncio.to_thread(sys.stdin.readline)
            case "acks some" if number > 2:
                await asyncio.Event().wait()
            case "is cut short":
                self._cut.set()
                await asyncio.Event().wait()
            case "records" | "records late":
                connecting = psycopg.AsyncConnection.connect(self._dsn, connect_timeout=5)
                with self._refusals(message):
                    async with await connecting as mine:
                        await mine.execute(*self._record(message))
                        if self._manner == "records late":
                            await asyncio.to_thread(sys.stdin.readline)
                        await message.ack(mine)
                return
        await message.ack()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("api")
    parser.add_argument("dsn")
    parser.add_argument("manner")
    parser.add_argument("--group", default="g")
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--concurrency", type=int, default=1)
    args = parser.parse_args()
    # Trap: dump_traceback_later() reads the frames of threads that run, and can crash the process
    # (https://github.com/python/cpython/issues/131580).
    faulthandler.enable()  # with SIGABRT it says where it hangs
    logging.disable()  # outages are expected here
    program = Program(args)
    if args.api == "sync":
        program.run()
    else:
        asyncio.run(program.arun())


if __name__ == "__main__":
    main()
