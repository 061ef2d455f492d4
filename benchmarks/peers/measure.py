"""One measurement of one peer: prints its result as one line of JSON.

``python -m benchmarks.peers.measure PEER MEASURE ADDRESS MESSAGES``, as ``run.py`` calls it.
Starting interpreters, importing and connecting is not timed. The event loop is uvloop's for all, or
Python's own if PEERS_LOOP is ``asyncio``.

A peer in another language does the same in a program of its own: `clients/program.py`.

- publish_batch: batches of 1,000, each confirmed before the next: messages a second.
- publish_single: one message after the other, each confirmed: messages a second.
- consume, consume4: a backlog through a no-op handler in one process, or in four of one group.
- consume_await: the same in one process, the handler sleeps 1 ms, 100 of them at once.
- wake: a message every 20 to 50 ms to an idle consumer; microseconds until its handler is entered,
  from before the commit was sent and from after it returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

from benchmarks.peers.base import BATCH, WARM_WAKES, Peer, Tally, Times
from benchmarks.peers.clients import load

CONSUMERS = {"consume": 1, "consume4": 4, "consume_await": 1, "wake": 1}
CONCURRENCY = {"consume_await": 100}
WAIT = 60.0  # seconds for consumers to become ready, or to end
LOST = 5.0  # seconds after which a wake-up is given up

Result = dict[str, Any]


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run on the event loop selected for all."""
    if os.environ.get("PEERS_LOOP") == "asyncio":
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)


async def publish(peer: Peer, measure: str, messages: int) -> Result:
    await peer.prepare()
    async with peer.publisher() as publisher:
        if measure == "publish_batch":
            messages = math.ceil(messages / BATCH) * BATCH
            return rate(messages, *await publisher.batches(messages))
        return rate(messages, *await publisher.singles(messages))


async def backlog(peer: Peer, messages: int) -> None:
    await peer.prepare()
    async with peer.publisher() as publisher:
        await publisher.fill(messages)
    await peer.settle()


async def publish_slowly(peer: Peer, messages: int) -> list[Times]:
    async with peer.publisher() as publisher:
        return await publisher.slowly(messages)


class Consumers:
    """Starts the consuming processes together, once all are ready."""

    def __init__(self, name: str, measure: str, address: str, total: int) -> None:
        context = multiprocessing.get_context("spawn")
        count = CONSUMERS[measure]
        self.handled = context.Array("q", count, lock=False)
        self.stop = context.Event()
        self._ready = context.Barrier(count + 1)
        self._reports = context.Queue()
        self._processes = [
            context.Process(
                target=consumer,
                args=(name, measure, address, total, number, self.handled, self.stop,
                      self._ready, self._reports),
                daemon=True,
            )
            for number in range(count)
        ]  # fmt: skip

    def start(self) -> None:
        for process in self._processes:
            process.start()
        with contextlib.suppress(threading.BrokenBarrierError):  # the error is in the report
            self._ready.wait(WAIT)

    def reports(self) -> list[Result]:
        """Return their results, or raise their error."""
        reports = []
        for _ in self._processes:
            reports.append(self._reports.get(timeout=WAIT))
            if error := reports[-1].get("error"):
                raise RuntimeError(error)
        for process in self._processes:
            process.join(WAIT)
        return reports


def consumer(  # noqa: PLR0917 - the arguments of a process
    name: str, measure: str, address: str, total: int, number: int,
    handled: Any, stop: Any, ready: Any, reports: Any,
) -> None:  # fmt: skip
    """Consume in a process of its own."""
    try:
        peer = load(name)(address)
        tally = Tally(measure, total, number, handled, stop.is_set)
        reports.put(run(_consume(peer, tally, CONCURRENCY.get(measure, 1), ready)))
    except BaseException as error:  # noqa: BLE001 - told to the measuring process
        ready.abort()
        reports.put({"error": f"{type(error).__name__}: {error}"})


async def _consume(peer: Peer, tally: Tally, concurrency: int, ready: Any) -> Result:
    await peer.open(tally, concurrency)
    ready.wait(WAIT)
    watch = asyncio.create_task(tally.watch())
    await peer.consume(tally, concurrency)
    await watch
    return tally.report()


def consume(name: str, measure: str, address: str, messages: int) -> Result:
    """Return the seconds from the first handler's start to the last confirmed acknowledgement."""
    peer = load(name)(address)
    run(backlog(peer, messages))
    consumers = Consumers(name, measure, address, messages)
    consumers.start()
    reports = consumers.reports()
    shares = [report["handled"] for report in reports]
    if sum(shares) < messages:
        raise RuntimeError(f"{sum(shares)} of {messages} messages were handled")
    first = min(report["first"] for report in reports if report["handled"])
    last = max(report["acked"] for report in reports if report["handled"])
    return rate(messages, first, last) | {"shares": shares, "again": sum(shares) - messages}


def wake(name: str, address: str, messages: int) -> Result:
    """Return microseconds of each message; negative if it was handled before the confirm."""
    peer = load(name)(address)
    run(peer.prepare())
    total = WARM_WAKES + messages
    consumers = Consumers(name, "wake", address, total)
    consumers.start()
    time.sleep(1)
    times = run(publish_slowly(load(name)(address), total))
    deadline = time.monotonic() + LOST
    while consumers.handled[0] < total and time.monotonic() < deadline:
        time.sleep(0.02)
    consumers.stop.set()
    entered = consumers.reports()[0]["entered"]
    sent, confirmed = [], []
    for number, (before, after) in enumerate(times):
        if number >= WARM_WAKES and number in entered:
            sent.append(round((entered[number] - before) / 1000))
            confirmed.append(round((entered[number] - after) / 1000))
    if not sent:
        raise RuntimeError("no message arrived")
    return {
        "messages": messages,
        "lost": messages - len(sent),
        "since_sent": sent,
        "since_confirmed": confirmed,
    }


def rate(messages: int, begun: int, ended: int) -> Result:
    seconds = (ended - begun) / 1e9
    return {"messages": messages, "seconds": seconds, "rate": messages / seconds}


def main(name: str, measure: str, address: str, messages: int) -> Result:
    if measure == "wake":
        return wake(name, address, messages)
    if measure in CONSUMERS:
        return consume(name, measure, address, messages)
    return run(publish(load(name)(address), measure, messages))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], messages=int(sys.argv[4]))))
