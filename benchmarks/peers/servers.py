"""The servers, each in a temporary folder, durable, and removed when the run ends.

Each is a child process that dies with this one. Started by root, they run as user nobody.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peers import install

START = 60.0  # seconds
#: The same for every peer on PostgreSQL. Connections: faststream-outbox takes one for each worker.
POSTGRES = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "300",
}
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
NATS = install.BIN / "nats-server"


@contextlib.contextmanager
def postgres(flush: float | None = None) -> Iterator[str]:
    """Run PostgreSQL; yield the URI of its database ``postgres``, over a Unix socket.

    `flush` makes every commit wait so many milliseconds, as for a slower disk.
    """
    from durable_notify.embedded import Server  # noqa: PLC0415 - not there before the set-up

    settings = dict(POSTGRES)
    if flush is not None:
        settings |= {"commit_delay": str(round(flush * 1000)), "commit_siblings": "0"}
    with folder() as place, Server(place / "pg", settings=settings) as server:
        yield server.dsn()


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """Run RabbitMQ, without plugins; yield its AMQP URI. It has its own port mapper (epmd)."""
    if not RABBITMQ.exists():
        raise missing("rabbitmq-server")
    port, mapper, distribution = free_port(), free_port(), free_port()
    with folder() as place:
        (place / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
        (place / "plugins").write_text("[].\n")
        environment = {
            "HOME": str(place),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(place / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(place / "data"),
            "RABBITMQ_LOG_BASE": str(place / "log"),
            "RABBITMQ_PID_FILE": str(place / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ("-kernel inet_dist_use_interface {127,0,0,1}"),
        }
        epmd = ["epmd", "-port", str(mapper), "-address", "127.0.0.1"]
        with (
            running(epmd, place, lambda: answers(mapper)),
            running([str(RABBITMQ)], place, lambda: answers(port), environment, place / "pid"),
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}/"


@contextlib.contextmanager
def nats(sync: str) -> Iterator[str]:
    """Run NATS with JetStream on files, which syncs them `sync`: a time, or ``always``."""
    if not NATS.exists():
        raise RuntimeError("nats-server was not built: it needs Go")
    port = free_port()
    with folder() as place:
        (place / "nats.conf").write_text(
            f"listen: 127.0.0.1:{port}\n"
            f'jetstream {{ store_dir: "{place}/jetstream", sync_interval: {sync} }}\n'
        )
        program = place / "nats-server"  # user nobody cannot enter root's folders
        shutil.copy(NATS, program)
        program.chmod(0o755)
        command = [str(program), "-c", str(place / "nats.conf")]
        with running(command, place, lambda: answers(port)):
            yield f"nats://127.0.0.1:{port}"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run Redis, which syncs its log before it answers; yield the URI of its Unix socket."""
    if shutil.which("redis-server") is None:
        raise missing("redis-server")
    with folder() as place:
        at = place / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(at), "--dir", str(place),
                   "--save", "", "--appendonly", "yes", "--appendfsync", "always"]  # fmt: skip
        with running(command, place, at.exists):
            yield f"unix://{at}"


#: By the name that a peer uses.
SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "postgres": postgres,
    "rabbitmq": rabbitmq,
    "nats": lambda: nats('"2m"'),
    "nats-sync": lambda: nats("always"),
    "redis": redis,
}


def version(server: str, address: str) -> str:
    """Return the version of a running server."""
    if server == "postgres":
        import psycopg  # noqa: PLC0415

        with psycopg.connect(address) as connection:
            return str(connection.execute("SHOW server_version").fetchone()[0])
    if server == "rabbitmq":
        return output(["dpkg-query", "--show", "--showformat", "${Version}", "rabbitmq-server"])
    if server == "redis":
        return re.findall(r"v=(\S+)", output(["redis-server", "--version"]))[0]
    return output([str(NATS), "--version"]).removeprefix("nats-server: v")


def output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def missing(package: str) -> RuntimeError:
    return RuntimeError(f"{package} is not installed: run as root once, or apt-get install it")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Create a temporary folder that all users may enter."""
    with tempfile.TemporaryDirectory(prefix="dn-peers-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    place: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    pid_file: Path | None = None,
) -> Iterator[None]:
    """Run a server until the block ends; its process id is its own, or that in `pid_file`."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if account:
        for path in (place, *place.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
    with (place / f"{Path(command[0]).name}.out").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=place, env=os.environ | dict(environment or {}), stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            user=account.pw_uid if account else None, group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )  # fmt: skip
    # Ends the server's session, and nothing else, however this process ends: then `read` returns.
    watchdog = subprocess.Popen(
        ["/bin/sh", "-c", f"read _; kill -KILL -{server.pid}"],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + START
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                said = Path(log.name).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{command[0]} did not start:\n{said}")
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, OSError, ValueError):
            os.kill(int(pid_file.read_text()) if pid_file else server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        watchdog.communicate()  # closes its end: it ends what is left of the session
        server.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
