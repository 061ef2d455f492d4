"""A run: processes under load, random faults, a full drain, and the verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from .. import schema
from .._sync.admin.admin import Admin
from ..embedded import Server
from ..errors import DurableNotifyError, InvalidArgument
from .checkers import Verdict, check
from .history import Effect, Event, History, Promise, Sent, read_events
from .nemesis import FAULTS, Scene, Step, plan
from .proxy import Proxy
from .worker import TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["GROUPS", "Group", "Plan", "Report", "TortureFailed", "torture"]

#: Committed data survives SIGKILL of every process without fsync. It need not survive the machine.
SETTINGS = {"fsync": "off", "max_prepared_transactions": "50", "max_connections": "200"}
_DDL = """
    CREATE SCHEMA torture;
    CREATE TABLE torture.sent (
        number bigint PRIMARY KEY, message_id bigint NOT NULL, topic text NOT NULL, key text);
    CREATE TABLE torture.effect (
        seq bigint GENERATED ALWAYS AS IDENTITY, grp text, number bigint, who text);
    SELECT durable_notify.set_notify_policy('quiet', 'never')"""
_LEFT = """
    SELECT group_name, topic, unread, deferred, leased FROM durable_notify.status(NULL)
     WHERE group_name IS NOT NULL AND unread + deferred + leased > 0"""
PATIENCE = 90.0


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """A group of consumers, and their settings."""

    name: str
    promise: Promise
    consumers: int = 1


GROUPS = (
    Group("effects", Promise("key", once=True), 2),
    Group("acks", Promise("none"), 2),
    Group("strict", Promise("strict"), 1),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run.

    Attributes:
        seed: repeats a run's decisions: faults and their times, and what publishers and handlers
            do.
        seconds: how long the nemesis breaks things.
        faults: some of ``FAULTS``.
        publishers: how many.
        rate: about how many transactions a second each publisher makes.
        groups: the groups that consume.
        lease: seconds of a lease; a process that is SIGSTOPped for longer loses its messages.
        bindir: the PostgreSQL to run; None: the embedded one.
        prepare: called with the DSN once the schema exists; for example to plant a fault.
        poll: seconds, or None: only wake-ups.
        work: the longest time a handler takes, in seconds.
    """

    seed: str
    seconds: float = 30.0
    faults: tuple[str, ...] = tuple(FAULTS)
    publishers: int = 2
    rate: float = 40.0
    groups: tuple[Group, ...] = GROUPS
    lease: float = 2.0
    bindir: Path | None = None
    prepare: Callable[[str], object] | None = None
    poll: float | None = 5.0
    work: float = 0.02

    def __post_init__(self) -> None:
        if unknown := set(self.faults) - FAULTS.keys():
            raise InvalidArgument(
                f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}"
            )
        if not 0 < self.seconds < 10**6 or not 0 <= self.publishers <= 100:
            raise InvalidArgument(
                "torture for a positive number of seconds, with 0 to 100 publishers"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """The result of a run."""

    plan: Plan
    verdict: Verdict
    history: History
    postgresql: str


class TortureFailed(DurableNotifyError):
    """The run itself failed, and so says nothing about the library."""


class Worker:
    """A publisher or consumer, behind a proxy of its own, that is killed and restarted."""

    def __init__(
        self, role: str, folder: Path, server: Server, plan: Plan, group: Group | None
    ) -> None:
        self.role = role
        self.proxy = Proxy(server.dsn())
        self._folder = folder
        self._plan = plan
        self._group = group
        self._times = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        turn = next(self._times)
        kind, number = self.role.split()[0], int(self.role.split()[-1])
        options = {
            "who": self.role,
            "dsn": self.proxy.dsn(),
            "record": str(self._folder / f"{self.role}.{turn}.jsonl"),
            "seed": f"{self._plan.seed}/{self.role}/{turn}",
            "first": (number * 1000 + turn) * 10_000,
            "rate": self._plan.rate,
            "work": self._plan.work,
        }
        if self._group is not None:
            kind = "consumer"
            promise = self._group.promise
            options |= {
                "group": self._group.name, "once": promise.once,
                "is_async": (number + turn) % 2 == 0,
                "order_by": promise.order_by,
                "settings": {"lease": self._plan.lease, "poll_interval": self._plan.poll},
            }  # fmt: skip
        with (self._folder / "workers.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "durable_notify.torture.worker", kind, json.dumps(options)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def has_spoken(self) -> bool:
        """Whether it has recorded something."""
        return any(path.stat().st_size for path in self._folder.glob(f"{self.role}.*.jsonl"))

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, seconds: float) -> int | None:
        """Ask it to end, and return its status; None: it did not end."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds) if self._process is not None else 0
        self.signal(signal.SIGUSR1)
        time.sleep(1.0)  # time to write the traceback
        self.kill()
        return None

    def close(self) -> None:
        """End all that still runs."""
        self.kill()
        self.proxy.close()


class Run:
    """One run, on a server of its own."""

    def __init__(
        self, plan: Plan, folder: Path, server: Server, say: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.server = server
        self.say = say
        self.publishers = [
            Worker(f"publisher {n}", folder, server, plan, None)
            for n in range(1, plan.publishers + 1)
        ]
        self.consumers = [
            Worker(f"{group.name} {n}", folder, server, plan, group)
            for group in plan.groups
            for n in range(1, group.consumers + 1)
        ]
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._record = (folder / "nemesis.jsonl").open("a", encoding="utf-8", buffering=1)
        members = [*self.publishers, *self.consumers]
        self._scene = Scene(server, members, self.later, self.note)
        self.left: list[str] = []

    def note(self, what: str, **about: Any) -> None:
        """Record an event of the run."""
        event = Event(time.monotonic(), "nemesis", what, **about)
        self._record.write(event.line() + "\n")

    def later(self, seconds: float, undo: Callable[[], None]) -> None:
        """Undo something that many seconds from now, or at the end."""
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._order), undo))

    def set_up(self) -> None:
        """Create the schema, and the tables that record the truth."""
        dsn = self.server.dsn()
        schema.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_DDL.encode())
            for group in self.plan.groups:
                query = "SELECT durable_notify.subscribe(%s, %s)"
                connection.execute(query, (group.name, list(TOPICS)))
        if self.plan.prepare is not None:
            self.plan.prepare(dsn)

    def warm_up(self) -> None:
        """Start all processes, and wait until each has recorded something."""
        deadline = time.monotonic() + PATIENCE
        workers = [*self.publishers, *self.consumers]
        while not all(worker.has_spoken() for worker in workers):
            self._wait_until(time.monotonic() + 0.1)
            if time.monotonic() > deadline:
                raise TortureFailed(f"not all processes started. Their log ends:\n{self.log()}")

    def log(self) -> str:
        """Return the end of the processes' logs."""
        return (self.folder / "workers.log").read_text(errors="replace")[-4000:]

    def break_things(self) -> None:
        """Do the planned faults, beside the load."""
        began = time.monotonic()
        for step in plan(self.plan.seed, self.plan.seconds, self.plan.faults):
            self._wait_until(began + step.at)
            self._do(step)
        self._wait_until(began + self.plan.seconds)

    def _do(self, step: Step) -> None:
        self.note("fault", note=f"{step.fault} {step.whom:.3f} for {step.length:.2f} s")
        self.say(f"{step.at:7.2f} s  {step.fault}")
        self._scene.do(step)

    def _wait_until(self, end: float) -> None:
        """Until then, undo faults that are due, and restart killed processes."""
        while (now := time.monotonic()) < end:
            while self._undo and self._undo[0][0] <= now:
                heapq.heappop(self._undo)[2]()
            for worker in (*self.publishers, *self.consumers):
                worker.start()
            due = self._undo[0][0] if self._undo else end
            time.sleep(max(0.0, min(due, end, now + 0.2) - time.monotonic()))

    def heal(self) -> None:
        """End every fault, and all publishing."""
        self._scene.start_server()
        while self._undo:
            heapq.heappop(self._undo)[2]()
        for worker in (*self.publishers, *self.consumers):
            worker.proxy.forward(leave_dead=True)
            # A handler's own statement would wait for ever on a dead connection that is not ended.
            worker.proxy.cut()
        for worker in self.publishers:
            worker.kill()

    def drain(self) -> None:
        """Let the consumers handle everything, and end."""
        deadline = time.monotonic() + PATIENCE
        left: list[tuple[Any, ...]] = []
        while time.monotonic() < deadline:
            for worker in self.consumers:
                worker.start()
            with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
                left = connection.execute(_LEFT).fetchall()
            if not left:
                break
            time.sleep(0.2)
        self.left += [
            f"group {group}, topic {topic}: {unread} unread, {deferred} deferred, {leased} leased"
            for group, topic, unread, deferred, leased in left
        ]
        for worker in self.consumers:
            if (status := worker.stop(30)) != 0:
                self.left.append(f"{worker.role} ended with {status}, not with 0: {self.log()}")

    def history(self) -> tuple[History, str]:
        """Collect the records and the database's view."""
        self._record.close()
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            ((version,),) = connection.execute("SHOW server_version").fetchall()
            sent = {row[0]: Sent(*row) for row in connection.execute("SELECT * FROM torture.sent")}
            logged = connection.execute(
                "SELECT (payload ->> 'n')::bigint, id FROM durable_notify.outbox"
            )
            query = "SELECT seq, grp, number, who FROM torture.effect ORDER BY seq"
            effects = [Effect(*row) for row in connection.execute(query)]
            promises = {group.name: group.promise for group in self.plan.groups}
            history = History(
                read_events(self.folder),
                sent,
                dict(logged.fetchall()),
                effects,
                promises,
                self.left,
            )
            dead = Admin().dead_letters(connection)
            history.left += [
                f"message {letter.id} is a dead letter: {letter.reason}" for letter in dead
            ]
        return history, str(version)

    def close(self) -> None:
        """End all that still runs."""
        for worker in (*self.publishers, *self.consumers):
            worker.close()
        self._record.close()


def torture(
    plan: Plan, *, keep: Path | None = None, say: Callable[[str], None] = lambda _words: None
) -> Report:
    """Run and judge. ``keep``: a folder for the records; ``say``: called with what is done.

    Raises:
        InvalidArgument: there is no such fault.
        EmbeddedError: there is no PostgreSQL to run, or it does not start.
    """
    with _folders(keep) as (base, folder):
        server = Server(base, plan.bindir, SETTINGS)
        with contextlib.ExitStack() as stack:
            stack.enter_context(server)
            run = Run(plan, folder, server, say)
            stack.callback(run.close)
            run.set_up()
            run.warm_up()
            run.break_things()
            say("draining")
            run.heal()
            run.drain()
            history, version = run.history()
    return Report(plan, check(history), history, version)


@contextlib.contextmanager
def _folders(keep: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield folders for the server and the records, and remove them, except ``keep``."""
    base = Path(tempfile.mkdtemp(prefix="durable_notify-torture-"))
    folder = keep or Path(tempfile.mkdtemp(prefix="durable_notify-history-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.jsonl")):
        raise InvalidArgument(f"{folder} has the records of another run. Choose another folder.")
    try:
        yield base, folder
    finally:
        shutil.rmtree(base)
        if keep is None:
            shutil.rmtree(folder)
