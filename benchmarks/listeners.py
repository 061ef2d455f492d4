"""Publishing while consumers sleep on 500 other topics, 25 on each listening connection."""

from __future__ import annotations

import contextlib
import random

import psycopg

from benchmarks.harness import INSERT, Figure, Report, Worker, machine, pgbench, server


def measure(
    *, processes: int = 20, each: int = 25, clients: int = 8, rounds: int = 7, seconds: float = 2.0
) -> Report:
    """Compare the rate of publishing without and with consumers asleep on other topics."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    with server() as running, psycopg.connect(running.dsn(), autocommit=True) as admin:

        def publish() -> float:
            admin.execute("TRUNCATE durable_notify.outbox")
            admin.execute("CHECKPOINT")
            return pgbench(running, INSERT % "durable_notify.outbox", clients, seconds)

        for _ in range(rounds):
            for name in random.sample(list(rates), 2):
                with contextlib.ExitStack() as stack:
                    for number in range(processes if name == "with" else 0):
                        topics = [f"idle.{number}.{topic}" for topic in range(each)]
                        options = {"topics": topics, "group": f"idle-{number}"}
                        stack.enter_context(Worker("sleep", running.dsn(), **options))
                    rates[name].append(publish())
        about = machine(admin) | {
            "processes": processes, "topics_each": each, "clients": clients, "seconds": seconds
        }  # fmt: skip
    ratios = [there / alone for there, alone in zip(rates["with"], rates["without"], strict=True)]
    name = f"publishing beside {processes * each} topics slept on, of without"
    return Report("listeners", about, [Figure(name, ">= 0.95", ratios)], rates)
