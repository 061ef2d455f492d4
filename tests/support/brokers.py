"""RabbitMQ, NATS and Redis as processes of the test's own: durable, on loopback, to be killed.

Each has a free port and a temporary folder, runs as the user nobody if we are root, and ends with the
test's process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.missing import need_program
from tests.support.wait import eventually

START = 60.0  # seconds
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Server:
    """A broker; `url` is where it is, and stays so when it is killed and started again."""

    program: str
    package: str = ""
    scheme: str
    as_root = False  # if we are root, it runs as the user nobody

    def __init__(self) -> None:
        need_program(self.program, self.package)
        self._folder = tempfile.TemporaryDirectory(prefix="dn-broker-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        self.port = free_port()
        self._processes: list[tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]] = []
        self.prepare()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write what it needs."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._folder.cleanup()

    def start(self) -> None:
        self.run(self.command())
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + START
        while not self.is_ready():
            process = self._processes[-1][0]
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "said").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.program} did not start:\n{said}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        return answers(self.port)

    def run(self, command: list[str]) -> None:
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 and not self.as_root else None
        if account:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        with (self.folder / "said").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | self.environment(), stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                user=account.pw_uid if account else None, group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )  # fmt: skip
        # Ends the server's session, and nothing else, however we end: then `read` returns.
        watchdog = subprocess.Popen(
            ["/bin/sh", "-c", f"read _; kill -KILL -{process.pid}"],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._processes.append((process, watchdog))

    def kill(self) -> None:
        """SIGKILL, to all of its processes."""
        while self._processes:
            process, watchdog = self._processes.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            watchdog.communicate()
        # Trap: RabbitMQ is a child of the process waited for. While it dies, its port still answers,
        # and a server started beside it on the same files loses queues.
        eventually(lambda: not answers(self.port), START)


class RabbitMQ(Server):
    """Messages over 1 MB are too large for it."""

    program = "rabbitmq-server"
    scheme = "amqp"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def prepare(self) -> None:
        self.mapper, self.distribution = free_port(), free_port()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nmax_message_size = 1048576\n"
        )
        (self.folder / "plugins").write_text("[].\n")

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none "
                # Otherwise the log of its own database is written late, and SIGKILL loses queues.
                "-mnesia dump_log_write_threshold 1"
            ),
        }

    def start(self) -> None:
        self.run(["epmd", "-port", str(self.mapper), "-address", "127.0.0.1"])
        eventually(lambda: answers(self.mapper), START)
        super().start()

    def command(self) -> list[str]:
        return [str(RABBITMQ)]


class Redis(Server):
    """It syncs its log before it answers. Messages over 1 MB are too large for it."""

    program = "redis-server"
    scheme = "redis"

    def command(self) -> list[str]:
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir",
                str(self.folder), "--save", "", "--appendonly", "yes", "--appendfsync",
                "always", "--proto-max-bulk-len", "1mb"]  # fmt: skip

    def is_ready(self) -> bool:
        """It listens before it has loaded its log."""
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(100).startswith(b"+PONG")
        return False


class Nats(Server):
    """JetStream on files, synced at each write where it can. Messages over 1 MB are too large."""

    program = "nats-server"
    scheme = "nats"

    def prepare(self) -> None:
        (self.folder / "nats.conf").write_text(
            f'listen: 127.0.0.1:{self.port}\njetstream {{ store_dir: "{self.folder}/jetstream" }}\n'
        )

    def command(self) -> list[str]:
        return ["nats-server", "-c", str(self.folder / "nats.conf")]


def ctl(server: RabbitMQ, *arguments: str) -> str:
    """Run rabbitmqctl, as the account that the server runs as."""
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    done = subprocess.run(
        [str(RABBITMQ.with_name("rabbitmqctl")), "--quiet", *arguments], cwd=server.folder,
        env=os.environ | server.environment(), capture_output=True, text=True, check=False,
        user=account.pw_uid if account else None, group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
