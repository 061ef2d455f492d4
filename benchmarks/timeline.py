"""Where the time of a wake-up goes: the moments between a commit and the handler of its message."""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import time
from typing import Any

import psycopg

from benchmarks.harness import Figure, Report, Worker, machine, percentile, server
from benchmarks.waking import BARE
from benchmarks.workers import BARE_PUBLISH, PUBLISH

#: The moments, in order. A worker reports all but the first, of each message.
MOMENTS = ("commit sent", "heard", "claim begun", "claim answered", "handler")
LISTENERS = ("async", "sync", "bare")


def measure(*, rounds: int = 10, messages: int = 100) -> Report:
    """Measure the gaps between the moments, in milliseconds, beside a listener by hand."""
    gaps: dict[str, dict[str, list[float]]] = {
        name: {moment: [] for moment in (*MOMENTS[1:], "all", "all, 99th percentile")}
        for name in LISTENERS
    }
    with server() as running, contextlib.ExitStack() as stack:
        dsn = running.dsn()
        publisher = stack.enter_context(psycopg.connect(dsn))
        publisher.execute(BARE)
        publisher.commit()
        workers = {name: stack.enter_context(Worker("stamp", dsn, kind=name)) for name in LISTENERS}
        for name, worker in workers.items():
            _round(publisher, worker, name, 20)  # warm
        for _ in range(rounds):
            for name in random.sample(LISTENERS, len(LISTENERS)):
                stamps = _round(publisher, workers[name], name, messages)
                for earlier, later in zip(range(4), range(1, 5), strict=True):
                    gap = statistics.median(each[later] - each[earlier] for each in stamps)
                    gaps[name][MOMENTS[later]].append(gap / 1e6)
                whole = [(each[-1] - each[0]) / 1e6 for each in stamps]
                gaps[name]["all"].append(statistics.median(whole))
                gaps[name]["all, 99th percentile"].append(percentile(whole, 99))
        publisher.rollback()
        about = machine(publisher) | {"messages": messages, "unit": "ms"}
    figures = [
        Figure(f"{name}: {moment}", "", values, "ms")
        for name, of in gaps.items()
        for moment, values in of.items()
    ]
    targets = {"all": "<= 1.4", "all, 99th percentile": "<= 2"}
    for name in LISTENERS[:2]:
        for whole, target in targets.items():
            pairs = zip(gaps[name][whole], gaps["bare"][whole], strict=True)
            figures.append(Figure(f"{name}: {whole}, of bare", target, [a / b for a, b in pairs]))
    return Report("timeline", about, figures, gaps)


def _round(
    publisher: psycopg.Connection[Any], worker: Worker, kind: str, messages: int
) -> list[list[int]]:
    """Publish single messages with pauses; return the nanoseconds of their moments."""
    sent = []
    for number in range(messages):
        time.sleep(random.uniform(0.02, 0.05))
        payload = json.dumps({"n": number})
        if kind == "bare":
            publisher.execute(BARE_PUBLISH, (payload,))
        else:
            publisher.execute(PUBLISH, (kind, payload))
        sent.append(time.monotonic_ns())
        publisher.commit()
    time.sleep(0.2)
    stamps = worker.tell("report")
    if len(stamps) != messages:
        raise RuntimeError(f"{len(stamps)} of {messages} messages had come")
    return [[at, *each] for at, each in zip(sent, stamps, strict=True)]
