"""A pgbouncer; in transaction mode a listener cannot hear through it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import psycopg

from tests.support.missing import need_program
from tests.support.wait import eventually

Mode = Literal["session", "transaction"]

_SETTINGS = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
max_client_conn = 200
logfile =
"""


class Pooler:
    """A pgbouncer in front of a database; it can be killed and started again."""

    def __init__(self, dsn: str, mode: Mode) -> None:
        program = need_program("pgbouncer")
        with psycopg.connect(dsn) as connection:
            info = connection.info
            host, port, user, dbname = info.host, info.port, info.user, info.dbname
            password = f"password={info.password}" if info.password else ""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            listen = probe.getsockname()[1]
        # Not tmp_path: as root it runs as the user nobody, who may not enter pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="dn-pooler-"))
        self.folder.chmod(0o755)
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(
            _SETTINGS.format(
                host=host, port=port, user=user, password=password, listen=listen, mode=mode
            )
        )
        self._command = [program, "--quiet", str(settings)]
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = f"postgresql://{quote(user)}@127.0.0.1:{listen}/{quote(dbname)}"

    def start(self) -> None:
        """Run it, and wait until it answers."""
        # It refuses to be root; root's server runs as the user nobody too, and lets in only that user.
        account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        process = self._process = subprocess.Popen(
            self._command,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            assert process.poll() is None, "pgbouncer did not start"
            try:
                psycopg.connect(self.dsn, connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        eventually(answers)

    def kill(self) -> None:
        """End it hard: all connections through it are gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def pooler(dsn: str, mode: Mode = "transaction") -> Iterator[Pooler]:
    """Run one in front of a database."""
    running = Pooler(dsn, mode)
    try:
        running.start()
        yield running
    finally:
        running.kill()
        shutil.rmtree(running.folder)


@contextmanager
def pgbouncer(dsn: str) -> Iterator[str]:
    """Run one in front of a database; yields the DSN through it."""
    with pooler(dsn) as running:
        yield running.dsn
