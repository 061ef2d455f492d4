"""Consumers in a process of their own that are signalled at a given moment.

As a program, it runs consumers by ``run``, and is signalled, by itself, at its moment: ``starting``,
``claiming``, ``handling``, ``settling`` or ``closing``; ``twice`` while a handler does not return,
or while it closes. It prints "at the moment" then, and what ``run`` did at its end.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

import durable_notify as dn
from durable_notify._async.database.queries import AsyncQueries
from durable_notify._sync.database.queries import Queries

METHODS = {"starting": "open", "claiming": "claim", "settling": "settle", "closing": "close"}


class Program:
    """The consumers of the process, and the moment at which it signals itself."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._is_async = args.half == "async"
        self._moment, self._number = args.moment, args.number
        self._reached = threading.Event()
        kind: Any = dn.AsyncConsumer if self._is_async else dn.Consumer
        options: dict[str, Any] = {"poll_interval": None, "lease": 600}
        if not args.together:
            options["topics"] = ["t"]
        self._plant()
        self._consumers = [kind(args.dsn, group=group, **options) for group in args.groups]

    def _now(self) -> None:
        """The moment has come: signal this process, once; or twice, if the moment says so."""
        if self._reached.is_set():
            return
        self._reached.set()
        print("at the moment", flush=True)
        times = 2 if self._moment.endswith("twice") else 1
        for _ in range(times):
            os.kill(os.getpid(), self._number)
            # Two at once would be one, if another thread is to handle them.
            while times > 1 and not self._consumers[0]._stopping.is_set() and not self._is_async:
                time.sleep(0.001)

    def _plant(self) -> None:
        """Have a call of the database be the moment."""
        method = METHODS.get(self._moment.removesuffix(" twice"))
        if method is None:
            return
        store: Any = AsyncQueries if self._is_async else Queries
        real = getattr(store, method)

        def planted(queries: Any, *more: Any, **options: Any) -> Any:
            self._now()
            return real(queries, *more, **options)

        async def async_planted(queries: Any, *more: Any, **options: Any) -> Any:
            self._now()
            return await real(queries, *more, **options)

        setattr(store, method, async_planted if self._is_async else planted)

    def _act(self) -> bool:
        """Do what a handler does; return whether it is never to return."""
        if self._moment in ("handling", "never returns twice"):
            self._now()
        if self._moment.startswith("closing"):
            for consumer in self._consumers:
                consumer.stop()
        return bool(self._moment == "never returns twice")

    async def _ahandle(self, _message: Any) -> None:
        if self._act():
            await asyncio.Event().wait()

    def _handle(self, _message: Any) -> None:
        if self._act():
            threading.Event().wait()

    def run_together(self) -> None:
        """Run them by dn.run() or dn.run_async()."""
        for consumer in self._consumers:
            consumer.on("t")(self._ahandle if self._is_async else self._handle)
        if self._is_async:
            asyncio.run(dn.run_async(*self._consumers))
        else:
            dn.run(*self._consumers)

    def run(self) -> None:
        if self._is_async:
            asyncio.run(self._run_each())
            return
        first, *others = self._consumers
        threads = [threading.Thread(target=other.run, args=(self._handle,)) for other in others]
        for thread in threads:
            thread.start()
        first.run(self._handle)
        for thread in threads:
            thread.join()

    async def _run_each(self) -> None:
        await asyncio.gather(*(consumer.run(self._ahandle) for consumer in self._consumers))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("half")
    parser.add_argument("dsn")
    parser.add_argument("moment")
    parser.add_argument("number", type=int)
    parser.add_argument("groups", nargs="+")
    parser.add_argument("--together", action="store_true", help="by dn.run() or dn.run_async()")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    program = Program(args)
    if args.together:
        program.run_together()
    else:
        program.run()
    print("ended", flush=True)
    if args.half == "sync":
        for number in (signal.SIGTERM, signal.SIGINT):
            assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


if __name__ == "__main__":
    main()
