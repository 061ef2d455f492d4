"""The nemesis: its faults, when each happens, and how it does and undoes them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from ..errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..embedded import Server
    from .proxy import Proxy

__all__ = ["FAULTS", "Member", "Scene", "Step", "plan"]

_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND application_name LIKE %s ORDER BY pid"
)
_HELD = (
    "INSERT INTO torture.sent (number, message_id, topic)"
    " SELECT %(n)s, durable_notify.publish(%(topic)s, jsonb_build_object('n', %(n)s)), %(topic)s"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A planned fault: when, for how long, and its target, as a share of the candidates."""

    at: float
    fault: str
    length: float
    whom: float
    how: float

    def among(self, those: Sequence[Any]) -> Any:
        """Return the target of some candidates."""
        return those[int(self.whom * len(those))]


def plan(seed: str, seconds: float, faults: Iterable[str], pace: float = 0.7) -> list[Step]:
    """Return the faults of a run: the same for the same seed, about one every ``pace`` seconds."""
    rng = random.Random(seed)
    names = sorted(faults)
    steps: list[Step] = []
    at = rng.expovariate(1 / pace)
    while at < seconds and names:
        length = min(rng.expovariate(1 / 1.5), 6.0)
        steps.append(Step(at, rng.choice(names), length, rng.random(), rng.random()))
        at += rng.expovariate(1 / pace)
    return steps


class Member(Protocol):
    """A process of the run."""

    role: str
    proxy: Proxy

    def kill(self) -> None:
        """Kill it; the run restarts it."""

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""


class Scene:
    """What the nemesis can break. ``later(seconds, undo)`` schedules the undoing."""

    def __init__(
        self,
        server: Server,
        members: Sequence[Member],
        later: Callable[[float, Callable[[], None]], None],
        note: Callable[..., None],
    ) -> None:
        self.server = server
        self.members = members
        self.later = later
        self.note = note
        self.number = 10**9  # the numbers of messages that held transactions publish

    def do(self, step: Step) -> None:
        """Do a fault. The server may be down at that moment, which is a fault too."""
        with contextlib.suppress(psycopg.OperationalError):
            FAULTS[step.fault](self, step)

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        """Connect without a proxy."""
        return psycopg.connect(self.server.dsn(dbname), connect_timeout=5, autocommit=True)

    def start_server(self) -> None:
        """Start the server, unless it runs or recovers, and wait until it is ready."""
        deadline = time.monotonic() + 60
        while not self.server.ready():
            try:
                self.server.start()
            except EmbeddedError:  # it runs and is not ready, because it recovers from a crash
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def sessions(self, name: str) -> list[int]:
        """Return the backends of our sessions whose name matches."""
        with self.connect() as connection:
            return [pid for (pid,) in connection.execute(_SESSIONS, (name,))]


def _kill(scene: Scene, step: Step) -> None:
    """SIGKILL a publisher or consumer."""
    step.among(scene.members).kill()


def _stop(scene: Scene, step: Step) -> None:
    """SIGSTOP a publisher or consumer for a while; its leases may expire meanwhile."""
    member = step.among(scene.members)
    member.signal(signal.SIGSTOP)
    scene.later(step.length, lambda: member.signal(signal.SIGCONT))


def _terminate(scene: Scene, step: Step, name: str = "%") -> None:
    """End the backend of one of the sessions."""
    if pids := scene.sessions(name):
        with scene.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (step.among(pids),))


def _listener(scene: Scene, step: Step) -> None:
    """End the backend of a listener."""
    _terminate(scene, step, "durable_notify listener")


def _cancel(scene: Scene, step: Step) -> None:
    """Cancel the statements of all our backends, a few times."""
    for _ in range(1 + int(step.how * 5)):
        with scene.connect() as connection:
            connection.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'durable_notify%' AND state = 'active'"
            )


def _oom(scene: Scene, step: Step) -> None:
    """SIGKILL a backend, as the kernel does when memory is short; the server restarts all."""
    if pids := scene.sessions("%"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(step.among(pids), signal.SIGKILL)


def _immediate(scene: Scene, step: Step) -> None:
    """Shut the server down immediately, and start it."""
    scene.server.stop("immediate")
    scene.later(step.length / 5, scene.start_server)


def _power(scene: Scene, step: Step) -> None:
    """SIGKILL the postmaster and all its processes, and start it."""
    scene.server.kill()
    scene.later(step.length / 5, scene.start_server)


def _cut(scene: Scene, step: Step) -> None:
    """Cut the connections of a process, at once or in the middle of a message."""
    step.among(scene.members).proxy.cut(None if step.how < 0.3 else int(step.how * 3000))


def _blackhole(scene: Scene, step: Step) -> None:
    """Drop all data of a process, in one direction or both; its connections stay dead."""
    proxy = step.among(scene.members).proxy
    proxy.blackhole(("both", "to_server", "to_client")[int(step.how * 3)])
    scene.later(step.length, lambda: proxy.forward(leave_dead=True))


def _delay(scene: Scene, step: Step) -> None:
    """Slow a process's network down."""
    proxy = step.among(scene.members).proxy
    proxy.delay(step.how * 0.4)
    scene.later(step.length, proxy.forward)


def _hold(scene: Scene, step: Step) -> None:
    """Publish in a transaction that stays open for long."""
    scene.number += 1
    number = scene.number
    connection = scene.connect()
    connection.execute("BEGIN")
    connection.execute("SAVEPOINT s")
    scene.note("publishing", numbers=(number,), note="held")
    try:
        connection.execute(_HELD, {"n": number, "topic": "t"})
    except psycopg.OperationalError:
        scene.note("rolled back", numbers=(number,))
        raise

    def end() -> None:
        what = "committed" if step.how < 0.7 else "rolled back"
        try:
            connection.execute("COMMIT" if what == "committed" else "ROLLBACK")
        except psycopg.OperationalError:
            what = "unknown"
        connection.close()
        scene.note(what, numbers=(number,))

    scene.later(step.length * 2, end)


def _prepare(scene: Scene, step: Step) -> None:
    """Publish in a transaction that is prepared, and outlives even the server's crash."""
    scene.number += 1
    number = scene.number
    name = f"torture {number}"
    scene.note("publishing", numbers=(number,), note="prepared")
    with scene.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(_HELD, {"n": number, "topic": "quiet"})
        connection.execute(f"PREPARE TRANSACTION '{name}'".encode())

    def end() -> None:
        verb = "COMMIT" if step.how < 0.7 else "ROLLBACK"
        try:
            with scene.connect() as connection:
                connection.execute(f"{verb} PREPARED '{name}'".encode())
        except psycopg.OperationalError:
            scene.later(0.3, end)
        except psycopg.errors.UndefinedObject:
            pass  # it had ended, and the connection broke
        else:
            scene.note("committed" if verb == "COMMIT" else "rolled back", numbers=(number,))

    scene.later(step.length * 2, end)


def _elsewhere(scene: Scene, step: Step) -> None:
    """Write in another database and stay open, which holds back every snapshot's xmin."""
    connection = scene.connect("template1")
    connection.execute("BEGIN")
    connection.execute("SELECT pg_current_xact_id()")
    scene.later(step.length * 2, connection.close)


FAULTS: dict[str, Callable[[Scene, Step], None]] = {
    "kill": _kill,
    "stop": _stop,
    "terminate": _terminate,
    "listener": _listener,
    "cancel": _cancel,
    "oom": _oom,
    "immediate": _immediate,
    "power": _power,
    "cut": _cut,
    "blackhole": _blackhole,
    "delay": _delay,
    "hold": _hold,
    "prepare": _prepare,
    "elsewhere": _elsewhere,
}
