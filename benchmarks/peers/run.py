"""Measure durable_notify and its peers in turn, in several rounds.

Installs what it needs into .venv-bench, and prints tables. A run of all measures and peers writes
the figures of each round to benchmarks/results/peers.json (or peers-flush.json); if it is ended
before, `--resume` continues it. README.md beside this file says what is measured, and how.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in place of this folder

from benchmarks.peers import install, progress, report  # noqa: E402

TIMEOUT = 150.0  # seconds for one measurement, its preparation included
REST = 0.3  # seconds between measurements
SHORT = {"messages": 500, "wake": 20}


def arguments() -> argparse.Namespace:
    from benchmarks.peers.base import MEASURES  # noqa: PLC0415
    from benchmarks.peers.clients import PEERS  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="measure", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--short", action="store_true", help="one round of little, to see it run; it is not kept"
    )
    parser.add_argument(
        "--table", action="store_true", help="only put the saved results into docs/performance.md"
    )
    parser.add_argument(
        "--resume", action="store_true", help="measure only what an ended run of all left out"
    )
    parser.add_argument("--minutes", type=float, help="end after so long; --resume continues")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help=f"some of {','.join(PEERS)}")
    parser.add_argument("--flush", type=float, help="milliseconds that PostgreSQL waits at commit")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    options = parser.parse_args()
    partial = options.short or options.measures or options.peers
    options.kept = options.resume or not partial
    if options.resume and (options.short or options.peers):
        parser.error("--resume is for a run of all peers: leave --short and --peers out")
    options.peers = options.peers.split(",") if options.peers else list(PEERS)
    options.measures = options.measures or list(MEASURES)
    if unknown := (set(options.peers) - set(PEERS)) | (set(options.measures) - set(MEASURES)):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if options.short:
        options.rounds = 1
    return options


class Run:
    """The servers, and the measurements on them."""

    def __init__(self, options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
        from benchmarks.peers import clients  # noqa: PLC0415

        self.options = options
        self.peers: dict[str, Any] = {}
        self.skipped: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self._databases = 0
        found = {name: clients.load(name) for name in options.peers}
        for name, peer in found.items():
            if options.flush is not None and peer.server != "postgres":
                continue
            if reason := peer.missing() or self.start(peer.server, stack):
                self.skipped[name] = reason
                print(f"{name} is skipped: {reason}", flush=True)
            else:
                self.peers[name] = peer

    def start(self, server: str, stack: contextlib.ExitStack) -> str | None:
        """Start a server, unless it runs; return why it cannot be started."""
        from benchmarks.peers import servers  # noqa: PLC0415

        if server in self.addresses:
            return None
        try:
            start = servers.SERVERS[server]()
            if server == "postgres":
                start = servers.postgres(self.options.flush)
            address = stack.enter_context(start)
            self.versions[server] = servers.version(server, address)
        except Exception as error:  # noqa: BLE001 - shown in the report
            return str(error)
        self.addresses[server] = address
        return None

    def messages(self, peer: Any, measure: str) -> int:
        """Return how many messages a measurement has."""
        if self.options.short:
            return SHORT["wake" if measure == "wake" else "messages"]
        wanted: int = peer.messages[measure]
        if self.options.flush is not None and measure == "publish_single":
            wanted = min(wanted, 1000)
        return wanted

    def measure(self, name: str, measure: str) -> dict[str, Any]:
        """Measure once, in processes of its own and with a new queue."""
        peer = self.peers[name]
        messages = self.messages(peer, measure)
        address = self.addresses[peer.server]
        with contextlib.ExitStack() as stack:
            if peer.server == "postgres":
                address = stack.enter_context(self.database(address))
            rest = busy(REST)
            return subprocess_result(name, measure, address, messages, self.options.loop) | {
                "busy_before": rest
            }

    @contextlib.contextmanager
    def database(self, address: str) -> Any:
        """Create a database, and drop it afterwards."""
        import psycopg  # noqa: PLC0415

        self._databases += 1
        name = f"peers_{self._databases}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
            try:
                yield address.replace("/postgres?", f"/{name}?")
            finally:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def about(self) -> dict[str, Any]:
        """Return the settings and hardware that the figures depend on."""
        packages: dict[str, str] = {}
        for peer in self.peers.values():
            packages |= peer.versions()
        cpu = [
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
        ]
        return {
            "at": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "cores": os.cpu_count(),
            "cpu": cpu[0].split(": ")[1] if cpu else platform.machine(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "servers": self.versions,
            "packages": dict(sorted(packages.items())),
            "skipped": self.skipped,
            "commit": commit(),
            "postgres": self.postgres_settings(),
            "peers": {name: peer.settings for name, peer in self.peers.items()},
            "options": vars(self.options),
        }

    def postgres_settings(self) -> dict[str, str]:
        import psycopg  # noqa: PLC0415

        names = ["fsync", "synchronous_commit", "wal_sync_method", "shared_buffers", "max_wal_size",
                 "checkpoint_timeout", "max_connections", "commit_delay"]  # fmt: skip
        if "postgres" not in self.addresses:
            return {}
        with psycopg.connect(self.addresses["postgres"]) as connection:
            query = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
            return dict(connection.execute(query, (names,)).fetchall())


def subprocess_result(
    name: str, measure: str, address: str, messages: int, loop: str
) -> dict[str, Any]:
    """Run ``measure.py``; an error is a result too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers.measure", name, measure, address, str(messages)],
        cwd=ROOT, env=os.environ | {"PEERS_LOOP": loop}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT:.0f} s"}
    finally:  # end its consumers too, whatever happened
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        return {"error": (errors.strip().splitlines() or ["it said nothing"])[-1]}
    return json.loads(out.splitlines()[-1])


def busy(seconds: float) -> float:
    """Return the share of the processors that is in use now, while nothing is measured."""

    def times() -> tuple[int, int]:
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    os.sync()
    before, idle_before = times()
    time.sleep(seconds)
    after, idle_after = times()
    return round(1 - (idle_after - idle_before) / max(1, after - before), 2)


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    options = arguments()
    if options.table:
        report.show_on_page()
        return
    if Path(sys.prefix).resolve() != install.VENV.resolve():
        install.install()
        os.execv(install.PYTHON, [str(install.PYTHON), __file__, *sys.argv[1:]])

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # by way of the servers' ends
    print(f"rounds {options.rounds}, seed {options.seed}, {options.loop}", flush=True)
    with contextlib.ExitStack() as stack:
        measured = measure_all(Run(options, stack), options)
    for measure in options.measures:
        print(f"\n{measure}\n\n{report.table(measure, measured.rounds)}")
    print(f"{measured.seconds} s")
    if not options.kept:
        print("not saved: not all measures of all peers")
    elif left := measured.left(options.rounds):
        print(f"{left} measurements are left: run it with --resume")
    else:
        report.keep(measured.rounds, measured.about)
        measured.forget()


def measure_all(run: Run, options: argparse.Namespace) -> progress.Progress:
    """Measure what is missing, in rounds; return all that was measured."""
    begun = time.monotonic()
    measures = {name: peer.messages for name, peer in run.peers.items()}
    measured = progress.begin(options, run.about(), measures)
    order = random.Random(options.seed)
    longest = 0.0
    for measure in options.measures:
        for number in range(1, options.rounds + 1):
            names = [name for name in run.peers if measured.lacks(measure, number, name)]
            order.shuffle(names)
            before = time.monotonic()
            if options.minutes and before + longest > begun + 60 * options.minutes:
                return measured
            for name in names:
                result = run.measure(name, measure)
                taken = {"measure": measure, "round": number, "peer": name} | result
                print(report.line(taken), flush=True)
                measured.add(taken)
            longest = max(longest, time.monotonic() - before)
    return measured


if __name__ == "__main__":
    main()
