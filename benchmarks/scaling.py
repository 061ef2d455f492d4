"""What one PostgreSQL carries: the cost of a message by its size, groups, topics, keys and so on.

It measures processor time, of the session's backend and of the consumer's process. That hardly
depends on what else the machine does, and a machine has so many cores a second to spend.
``benchmarks/scaling_page.py`` writes the tables of ``docs/scaling.md`` from the results.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import heapq
import json
import os
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.harness import Figure, Report, Worker, machine, server, wal_bytes
from durable_notify._async.consumer.consumer import AsyncConsumer

#: The group that reads a topic of that name, unless said otherwise.
_SUBSCRIBE = "SELECT durable_notify.subscribe(%s, %s, 'now')"
_INSERT = (
    "INSERT INTO durable_notify.outbox (topic, key, payload)"
    " SELECT %s, 'key-' || (random() * %s)::int, p::jsonb FROM unnest(%s::text[]) AS p"
)
_INSERT_PLAIN = (
    "INSERT INTO durable_notify.outbox (topic, payload) SELECT %s, p::jsonb"
    " FROM unnest(%s::text[]) AS p"
)
_CLAIM = "SELECT token, id, payload::text FROM durable_notify.claim(%s, %s, %s)"
_SETTLE = "SELECT durable_notify.settle(%s, %s)"
_DISK = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('durable_notify.outbox')"
Connection = psycopg.Connection[Any]
Cost = dict[str, float]


def cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def memory(pid: int) -> float:
    """Return the MB of memory that a process has for itself."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) for kb in re.findall(r"Private_\w+: +(\d+)", text)) / 1000


def payload(size: int) -> str:
    """Return JSON of that size, of random text, which does not compress well."""
    note = base64.b64encode(os.urandom(size)).decode()[: max(0, size - 12)]
    return json.dumps({"note": note})


def cost(connection: Connection, messages: int, work: Callable[[], Any]) -> Cost:
    """Return what work costs a message: microseconds of the backend, bytes of WAL, and its rate."""
    pid, lsn, begun = connection.info.backend_pid, wal_bytes(connection), time.perf_counter()
    before = cpu(pid)
    work()
    used, seconds = cpu(pid) - before, time.perf_counter() - begun
    return {
        "cpu": used / messages * 1e6,
        "wal": wal_bytes(connection, lsn) / messages,
        "rate": messages / seconds,
    }


def publish(
    connection: Connection,
    messages: int,
    *,
    each: int = 1,
    size: int = 120,
    topics: int = 1,
    keys: int | None = None,
    prefix: str = "t",
) -> Cost:
    """Publish messages, so many a transaction."""
    bodies = [payload(size)] * each

    def work() -> None:
        for _ in range(0, messages, each):
            topic = f"{prefix}{random.randrange(topics)}"
            if keys is None:
                connection.execute(_INSERT_PLAIN, (topic, bodies), prepare=True)
            else:
                connection.execute(_INSERT, (topic, keys, bodies), prepare=True)

    return cost(connection, messages, work)


def deliver(
    connection: Connection, group: str, topics: list[str], messages: int, *, batch: int = 500
) -> Cost:
    """Claim and settle all that a group has to read, in SQL."""

    def work() -> None:
        seen = 0
        while seen < messages:
            rows = connection.execute(_CLAIM, (group, topics, batch), prepare=True).fetchall()
            ids: dict[int, list[int]] = {}
            for token, message_id, _ in rows:
                ids.setdefault(token, []).append(message_id)
            for token, of_it in ids.items():
                connection.execute(_SETTLE, (token, of_it), prepare=True)
            assert rows, f"{messages - seen} messages are missing"
            seen += len(rows)

    return cost(connection, messages, work)


class Bench:
    """A server, and what the measurements share. Each returns a cost, or several by name."""

    def __init__(self, dsn: str, scale: float) -> None:
        self.dsn = dsn
        self.scale = scale
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.number = 0

    def count(self, messages: int) -> int:
        """Return so many messages, or fewer for a short run."""
        return max(500, int(messages * self.scale) // 500 * 500)

    def fresh(self, topics: list[str], groups: int = 1) -> list[str]:
        """Empty the outbox, and create groups that read topics."""
        query = "SELECT durable_notify.delete_group(name) FROM durable_notify.groups()"
        self.admin.execute(query)
        self.admin.execute("TRUNCATE durable_notify.outbox")
        self.number += 1
        names = [f"g{self.number}-{n}" for n in range(groups)]
        for name in names:
            self.admin.execute(_SUBSCRIBE, (name, topics))
        return names

    def sizes(self, size: int) -> dict[str, Cost]:
        """The cost by the size of the payload."""
        (group,) = self.fresh(["t0"])
        number = self.count(min(10_000, 20_000_000 // size))
        before = float(self.value(_DISK))
        found = {"alone": publish(self.admin, self.count(1_000), size=size)}
        found["bulk"] = publish(self.admin, number, each=500, size=size)
        found["disk"] = {
            "bytes": (float(self.value(_DISK)) - before) / (number + self.count(1_000))
        }
        found["deliver"] = deliver(self.admin, group, ["t0"], number + self.count(1_000))
        return found

    def groups(self, groups: int) -> dict[str, Cost]:
        """The cost by how many groups read each message."""
        names = self.fresh(["t0"], groups)
        number = self.count(20_000 if groups == 1 else 2_000)
        found = {"publish": publish(self.admin, self.count(1_000))}
        publish(self.admin, number - self.count(1_000), each=500)
        begun = time.perf_counter()
        costs = [deliver(self.admin, name, ["t0"], number) for name in names[:20]]
        seconds = time.perf_counter() - begun
        found["deliver"] = {
            "cpu": sum(c["cpu"] for c in costs) / len(costs),
            "wal": sum(c["wal"] for c in costs) / len(costs),
            "rate": number * len(costs) / seconds,
        }
        return found

    def topics(self, topics: int) -> dict[str, Cost]:
        """The cost by how many topics there are; and of looking into all of them in vain."""
        names = [f"t{n}" for n in range(topics)]
        (group,) = self.fresh(names)
        number = self.count(2_000)
        found = {"alone": publish(self.admin, number, topics=topics)}
        of_each = [
            row[0] for row in self.admin.execute("SELECT DISTINCT topic FROM durable_notify.outbox")
        ]
        found["deliver"] = deliver(self.admin, group, of_each, number)
        found["empty"] = cost(self.admin, 5, lambda: self.claim_nothing(group, names, 5))
        found["empty one"] = cost(self.admin, 50, lambda: self.claim_nothing(group, names[:1], 50))
        return found

    def claim_nothing(self, group: str, topics: list[str], times: int) -> None:
        for _ in range(times):
            assert not self.admin.execute(_CLAIM, (group, topics, 100), prepare=True).fetchall()

    def keys(self, keys: int | None) -> dict[str, Cost]:
        """The cost by how many keys the messages have, in a group in order by key."""
        (group,) = self.fresh(["t0"])
        number = self.count(10_000)
        found = {"publish": publish(self.admin, number, each=500, keys=keys)}
        found["deliver"] = deliver(self.admin, group, ["t0"], number)
        return found

    def batches(self, batch: int) -> dict[str, Cost]:
        """The cost by how many messages a claim gets."""
        (group,) = self.fresh(["t0"])
        number = self.count(min(10_000, batch * 300))
        publish(self.admin, number, each=500)
        return {"deliver": deliver(self.admin, group, ["t0"], number, batch=batch)}

    def retained(self, levels: tuple[int, ...], rounds: int) -> dict[str, Any]:
        """The cost by how many messages the outbox has already."""
        self.fresh(["t0"])
        found: dict[str, Any] = {}
        held = 0
        for level in levels:
            body = payload(120)
            while held < level:
                some = min(100_000, level - held)
                self.admin.execute(_INSERT_PLAIN, ("t0", [body] * some))
                held += some
            self.admin.execute("VACUUM (ANALYZE) durable_notify.outbox")
            costs = []
            for _ in range(rounds):
                self.number += 1
                group, number = f"g{self.number}", self.count(2_000)
                self.admin.execute(_SUBSCRIBE, (group, ["t0"]))
                alone = publish(self.admin, number)
                costs.append(
                    {"alone": alone, "deliver": deliver(self.admin, group, ["t0"], number)}
                )
            found[str(level)] = merged(costs)
        return found

    def value(self, query: str, *params: Any) -> Any:
        row = self.admin.execute(query, params or None).fetchone()
        assert row is not None
        return row[0]

    def python(self) -> Cost:
        """The processor time of a consumer's process and of its backends, for an empty handler."""
        (group,) = self.fresh(["t0"])
        number = self.count(30_000)
        publish(self.admin, number, each=500)
        used: dict[str, float] = {}

        async def consume() -> None:
            seen = 0

            async def handler(_message: object) -> None:
                nonlocal seen
                seen += 1
                if seen == number - 1:  # its backends are there still
                    used["backends"] = sum(cpu(pid) for pid in self.backends(f"%{group}"))

            await AsyncConsumer(
                self.dsn, group=group, topics=["t0"], until_empty=True, maintenance=False
            ).run(handler)

        before, begun = time.process_time(), time.perf_counter()
        asyncio.run(consume())
        seconds = time.perf_counter() - begun
        return {
            "python": (time.process_time() - before) / number * 1e6,
            "backends": used["backends"] / number * 1e6,
            "rate": number / seconds,
        }

    def backends(self, application: str) -> list[int]:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s"
        return [row[0] for row in self.admin.execute(query, (application,))]

    def consumers(self, consumers: int) -> Cost:
        """How fast so many processes of one group handle a backlog that appears at once."""
        number = self.count(20_000)
        self.number += 1
        topic = f"c{self.number}-"
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(Worker("consume", self.dsn, topics=[f"{topic}0"], group=topic))
                for _ in range(consumers)
            ]
            begun, seen = time.perf_counter(), 0
            publish(self.admin, number, each=number, prefix=topic)
            while seen < number:
                time.sleep(0.02)
                seen += sum(worker.tell("count")["handled"] for worker in workers)
            return {"rate": number / (time.perf_counter() - begun)}

    def memory(self, topics: int) -> Cost:
        """The memory of a sleeping consumer, its listening session, and its other sessions."""
        names = [f"m{n}" for n in range(topics)]
        self.number += 1
        group = f"g{self.number}"
        with Worker("sleep", self.dsn, topics=names, group=group) as worker:
            (listener,) = self.backends("durable_notify listener")
            sessions = self.backends(f"durable_notify consumer {group}")
            return {
                "process": memory(worker.pid),
                "listener": memory(listener),
                "sessions": sum(memory(pid) for pid in sessions),
                "number": float(len(sessions)),
            }


def simulate(consumers: int, batch: int, *, turn: float, settle: float, handle: float) -> float:
    """Return the messages a second of a group, if the processor is not the limit: a simulation.

    Claims of a group take turns, each for ``turn`` seconds. Then the consumer handles its batch,
    for ``handle`` seconds, and settles it. All times vary as if by chance (exponentially).
    """
    seconds = 20.0
    rng = random.Random(1)
    wants = [(0.0, number) for number in range(consumers)]
    free, delivered = 0.0, 0
    while (wanted := heapq.heappop(wants))[0] < seconds:
        free = max(free, wanted[0]) + rng.expovariate(1 / turn)
        work = rng.expovariate(1 / settle) + (rng.expovariate(1 / handle) if handle else 0.0)
        delivered += batch if free < seconds else 0
        heapq.heappush(wants, (free + work, wanted[1]))
    return delivered / seconds


def in_turn(rounds: int, measure: Callable[[Any], Any], values: Sequence[Any]) -> dict[str, Any]:
    """Measure all values in turn, so many times; return lists of rounds, by value and name."""
    found: dict[str, list[Any]] = {str(value): [] for value in values}
    for _ in range(rounds):
        for value in values:
            found[str(value)].append(measure(value))
    return {name: merged(each) for name, each in found.items()}


def merged(rounds: list[Any]) -> Any:
    """Turn a list of dicts into a dict of lists."""
    if isinstance(rounds[0], dict):
        return {name: merged([each[name] for each in rounds]) for name in rounds[0]}
    return rounds


def measure(
    *, rounds: int = 5, scale: float = 1.0, retained: tuple[int, ...] = (10_000, 100_000, 1_000_000)
) -> Report:
    """Measure everything, and simulate more consumers than this machine can run."""
    with server() as running:
        bench = Bench(running.dsn(), scale)
        bench.sizes(120)  # warm
        rates: dict[str, Any] = {
            "sizes": in_turn(rounds, bench.sizes, (120, 1_000, 10_000, 100_000)),
            "groups": in_turn(rounds, bench.groups, (1, 10, 100)),
            "topics": in_turn(rounds, bench.topics, (1, 10, 100, 1_000)),
            "keys": in_turn(rounds, bench.keys, (None, 10, 1_000, 100_000)),
            "batches": in_turn(rounds, bench.batches, (1, 10, 100, 500)),
            "python": merged([bench.python() for _ in range(rounds)]),
            "consumers": in_turn(rounds, bench.consumers, (1, 2, 4)),
            "memory": in_turn(min(rounds, 3), bench.memory, (1, 100, 1_000)),
            "retained": bench.retained(retained, rounds),
        }
        about = machine(bench.admin) | {"rounds": rounds, "scale": scale}
        bench.admin.close()
    rates["simulated"] = simulated(statistics.median(rates["batches"]["100"]["deliver"]["cpu"]))
    first, *_, last = rates["retained"]
    compared = {
        "in 100 groups, of in one": ("groups", "100", "1"),
        "of 1,000 topics, of one": ("topics", "1000", "1"),
        "with 100,000 keys, of none": ("keys", "100000", "None"),
        f"with {last} messages retained, of {first}": ("retained", last, first),
    }
    figures = [
        Figure(f"processor time of a delivery {name}", "", ratios(rates[what], many, few))
        for name, (what, many, few) in compared.items()
    ]
    return Report("scaling", about, figures, rates)


def ratios(found: dict[str, Any], many: str, few: str) -> list[float]:
    pairs = zip(found[many]["deliver"]["cpu"], found[few]["deliver"]["cpu"], strict=True)
    return [large / small for large, small in pairs]


def simulated(deliver: float) -> dict[str, dict[str, int]]:
    """Simulate a group, by how long a message is handled and how many consumers there are.

    Half of what a delivery costs is the claim's turn, the other half the settle.
    """
    batch, half = 100, deliver * 100 / 2e6
    return {
        f"{milliseconds:g} ms": {
            str(consumers): round(
                simulate(
                    consumers, batch, turn=half, settle=half, handle=batch * milliseconds / 1e3
                )
            )
            for consumers in (1, 4, 16, 64)
        }
        for milliseconds in (0.1, 1, 10)
    }
