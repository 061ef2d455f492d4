"""Waking a consumer that sleeps, beside a NOTIFY and a SELECT written by hand."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import psycopg

from benchmarks.harness import Figure, Report, Worker, machine, percentile, server

BARE = """
    CREATE TABLE IF NOT EXISTS bare (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp())"""


def latencies(listener: Worker, publisher: Worker, messages: int) -> list[float]:
    """Publish single messages with pauses; return the milliseconds until the handler starts."""
    publisher.tell(str(messages))
    found = listener.tell("count")["latencies"]
    if len(found) != messages:
        raise RuntimeError(f"{len(found)} of {messages} messages had come")
    return [nanoseconds / 1e6 for nanoseconds in found]


def measure(*, rounds: int = 10, messages: int = 150) -> Report:
    """Compare the time from before the publish to the start of the handler."""
    taken: dict[str, list[list[float]]] = {"ours": [], "bare": [], "control": []}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:
        admin.execute(BARE)
        dsn = running.dsn()
        with contextlib.ExitStack() as stack:
            start: Callable[..., Worker] = lambda *a, **k: stack.enter_context(Worker(*a, **k))  # noqa: E731
            ours = start("consume", dsn, topics=["orders"], group="bench")
            bare = start("bare", dsn)
            publishers = {
                "ours": start("publish", dsn, kind="ours"),
                "bare": start("publish", dsn, kind="bare"),
            }
            publishers["control"] = publishers["bare"]
            pairs = {"ours": ours, "bare": bare, "control": bare}
            for name, listener in pairs.items():  # warm
                latencies(listener, publishers[name], 10)
            for _ in range(rounds):
                for name in random.sample(list(pairs), len(pairs)):
                    taken[name].append(latencies(pairs[name], publishers[name], messages))
        about = machine(admin) | {"messages": messages, "unit": "ms"}
    figures = [
        _figure(taken, which, percent, target)
        for which, targets in (("ours", ("<= 1.4", "<= 2")), ("control", ("", "")))
        for percent, target in zip((50, 99), targets, strict=True)
    ]
    for name, rounds_of in taken.items():
        for percent in (50, 99):
            values = [percentile(values, percent) for values in rounds_of]
            figures.append(Figure(f"{name}: {percent}th percentile", "", values, "ms"))
    return Report("waking", about, figures, taken)


def _figure(taken: dict[str, list[list[float]]], which: str, percent: int, target: str) -> Figure:
    pairs = zip(taken[which], taken["bare"], strict=True)
    ratios = [percentile(one, percent) / percentile(bare, percent) for one, bare in pairs]
    return Figure(f"{which}: idle wake-up, {percent}th percentile, of bare", target, ratios)
