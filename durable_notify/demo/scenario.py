"""The steps of the demo. A step waits for what it needs, never for a time."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from .. import schema
from .._sync.admin.admin import Admin
from ..embedded import Server
from .events import find
from .names import GROUP, LEASE, TOPIC
from .parties import PlainListener, Worker, notify_and_publish
from .report import Narrator, show
from .tally import Results, Sent

if TYPE_CHECKING:
    from rich.console import Console


__all__ = ["run"]

#: One of so many transactions rolls back.
ROLLBACK_EVERY = 4

Transaction = dict[int, Any]


def run(
    *, repository: Path | None, file: Path | None, limit: int, console: Console | None = None
) -> int:
    """Run the demo, and return the exit status: 1 if durable_notify broke its promise."""
    narrator = Narrator(console)
    events = find(repository, file, limit)
    narrator.title(f"{len(events.payloads)} events: {events.origin}")
    # Not a folder below it: started by root, the server runs as user nobody, which cannot enter
    # root's folders.
    with tempfile.TemporaryDirectory(
        prefix="durable-notify-demo-", ignore_cleanup_errors=True
    ) as folder:
        narrator.say("Starting a PostgreSQL for this demo ...")
        with Server(Path(folder)) as server:
            results = _Scenario(server, narrator, events.payloads).play()
    return show(narrator.console, results)


class _Scenario:
    def __init__(self, server: Server, narrator: Narrator, events: list[Any]) -> None:
        self._server = server
        self._dsn = server.dsn()
        self._narrator = narrator
        self._plain = PlainListener(self._dsn)
        self._results = Results(Sent(), self._plain.arrived)
        numbered = dict(enumerate(events, 1))
        third = len(events) // 3
        # The last transaction of the second part will be open when PostgreSQL is killed.
        self._parts = [
            _transactions(numbered, 1, third),
            _transactions(numbered, third + 1, 2 * third),
            _transactions(numbered, 2 * third + 1, len(events)),
        ]

    def play(self) -> Results:
        schema.migrate(self._dsn)
        with psycopg.connect(self._dsn) as connection:
            version = connection.info.server_version // 10000
        self._narrator.say(f"PostgreSQL {version} runs, with the schema durable_notify in it.")
        with ExitStack() as stack:
            self._both_listen(stack)
            self._killed_in_mid_batch()
            self._postgres_killed()
            self._back_again(stack)
            self._replay(stack)
        return self._results

    def _both_listen(self, stack: ExitStack) -> None:
        self._narrator.step("A plain LISTEN client and a durable_notify consumer both run.")
        first, second = _committed(self._parts[0]), _committed(self._parts[1][:-1])
        self._worker = Worker(self._dsn, stop_at=first + max(1, second // 2))
        stack.callback(self._worker.kill)
        self._worker.wait_for("ready")
        self._plain.come()
        self._publish(self._parts[0])
        self._worker.wait_for_messages(first)
        self._plain.leave()
        self._narrator.say(
            f"LISTEN got {len(self._plain.arrived)}, durable_notify {len(self._worker.arrived)}."
        )

    def _killed_in_mid_batch(self) -> None:
        self._narrator.step("The LISTEN client is away, as in a deployment. Publishing continues.")
        self._publish(self._parts[1][:-1])
        self._worker.wait_for("mid-batch")
        self._worker.kill()
        self._results.durable += self._worker.arrived
        with psycopg.connect(self._dsn) as connection:
            held = sum(row.leased or 0 for row in Admin().status(connection))
        self._narrator.step(
            f"The consumer, process {self._worker.pid}, is killed within a batch (SIGKILL)."
        )
        self._narrator.say(f"It held {held} messages that it had not acknowledged.")

    def _postgres_killed(self) -> None:
        in_flight = self._parts[1][-1]
        with psycopg.connect(self._dsn) as connection:
            notify_and_publish(connection, in_flight)
            self._results.sent.in_flight |= in_flight
            pid = self._server.pid
            self._server.kill()
            connection.close()
        self._narrator.step(f"PostgreSQL, process {pid}, is killed (SIGKILL), and started again.")
        self._server.start()
        self._narrator.say(
            f"A transaction of {len(in_flight)} event(s) was open: PostgreSQL has undone it."
        )

    def _back_again(self, stack: ExitStack) -> None:
        self._narrator.step("Both come back; publishing continues.")
        self._plain.come()
        self._publish(self._parts[2])
        self._narrator.say(f"The killed consumer's messages are free after {LEASE:g} s.")
        worker = Worker(self._dsn, until_empty=True)
        stack.callback(worker.kill)
        worker.finish()
        self._results.durable += worker.arrived
        self._plain.leave()
        self._narrator.say(f"The new consumer got {len(worker.arrived)}; no messages are left.")

    def _replay(self, stack: ExitStack) -> None:
        numbers = sorted(self._results.sent.committed)
        again = numbers[len(numbers) // 2 :]
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT min(id) - 1 FROM durable_notify.outbox WHERE (payload->>'n')::int = %s",
                (again[0],),
            ).fetchone()
            position: int = row[0]  # type: ignore[index]
            announced = Admin().replay(connection, GROUP, TOPIC, after=position)
        self._results.announced = announced
        self._results.to_replay = set(again)
        self._narrator.step(
            f"Replay: rewind the group to id {position}; {announced} messages are redelivered."
        )
        worker = Worker(self._dsn, until_empty=True)
        stack.callback(worker.kill)
        worker.finish()
        self._results.replayed += worker.arrived
        self._narrator.say(f"{len(worker.arrived)} arrived.")

    def _publish(self, transactions: list[Transaction]) -> None:
        committed = rolled_back = 0
        with psycopg.connect(self._dsn) as connection:
            for index, events in enumerate(transactions):
                too_long = notify_and_publish(connection, events)
                if _rolls_back(index):
                    connection.rollback()
                    self._results.sent.rolled_back |= events
                    rolled_back += len(events)
                else:
                    connection.commit()
                    self._results.sent.committed |= events
                    self._results.too_long += too_long
                    committed += len(events)
        self._narrator.say(
            f"Published {committed} events in {len(transactions)} transactions; "
            f"{rolled_back} more were rolled back."
        )


def _rolls_back(index: int) -> bool:
    return index % ROLLBACK_EVERY == 1


def _transactions(numbered: Transaction, first: int, last: int) -> list[Transaction]:
    """Cut events into transactions: about twenty, at least one event each."""
    size = max(1, (last - first + 1) // 20)
    return [
        {number: numbered[number] for number in range(start, min(start + size, last + 1))}
        for start in range(first, last + 1, size)
    ]


def _committed(transactions: list[Transaction]) -> int:
    """Return how many events of a part will be committed."""
    return sum(len(part) for index, part in enumerate(transactions) if not _rolls_back(index))
