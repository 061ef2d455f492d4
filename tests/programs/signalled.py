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
    at_the_moment = threading.Event()

    def now(times: int = 1) -> None:
        if not at_the_moment.is_set():
            at_the_moment.set()
            print("at the moment", flush=True)
            for _ in range(times):
                os.kill(os.getpid(), args.number)
                # Two at once would be one, where another thread is to handle them.
                while times > 1 and not made[0]._stopping.is_set() and args.half == "sync":
                    time.sleep(0.001)

    def plant(store: Any) -> None:
        method = METHODS.get(args.moment.removesuffix(" twice"))
        if method is None:
            return
        real = getattr(store, method)
        times = 2 if args.moment.endswith("twice") else 1

        async def planted(self: Any, *more: Any, **options: Any) -> Any:
            now(times)
            return await real(self, *more, **options)

        def planted_now(self: Any, *more: Any, **options: Any) -> Any:
            now(times)
            return real(self, *more, **options)

        setattr(store, method, planted if args.half == "async" else planted_now)

    plant(AsyncQueries if args.half == "async" else Queries)
    options: dict[str, Any] = {"poll_interval": None, "lease": 600}
    if not args.together:
        options["topics"] = ["t"]

    def make(group: str) -> Any:
        kind = dn.AsyncConsumer if args.half == "async" else dn.Consumer
        consumer: Any = kind(args.dsn, group=group, **options)
        made.append(consumer)
        return consumer

    made: list[Any] = []

    def act() -> bool:
        """What is done in a handler; returns whether it is never to return."""
        if args.moment == "handling":
            now()
        if args.moment == "never returns twice":
            now(2)
            return True
        if args.moment.startswith("closing"):
            for consumer in made:
                consumer.stop()
        return False

    async def ahandle(_message: Any) -> None:
        if act():
            await asyncio.Event().wait()

    def handle(_message: Any) -> None:
        if act():
            threading.Event().wait()

    async def both() -> None:
        await asyncio.gather(*(make(group).run(ahandle) for group in args.groups))

    if args.together:
        for group in args.groups:
            make(group).on("t")(ahandle if args.half == "async" else handle)
        if args.half == "async":
            asyncio.run(dn.run_async(*made))
        else:
            dn.run(*made)
    elif args.half == "async":
        asyncio.run(both())
    else:
        others = [
            threading.Thread(target=make(group).run, args=(handle,)) for group in args.groups[1:]
        ]
        for other in others:
            other.start()
        make(args.groups[0]).run(handle)
        for other in others:
            other.join()
    print("ended", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler) or (
            args.half == "async"
        )


if __name__ == "__main__":
    main()
