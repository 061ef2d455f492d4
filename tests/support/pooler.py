"""A pgbouncer in transaction mode: what a listener cannot hear through."""

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
from urllib.parse import quote

import psycopg
import pytest

from tests.support.waiting import eventually

_SETTINGS = """
[databases]
* = host={host} port={port} user={user} {password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 200
logfile =
"""


@contextmanager
def pgbouncer(dsn: str) -> Iterator[str]:
    """Run one in front of a database; yields the DSN through it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("There is no pgbouncer: apt-get install pgbouncer")
    with psycopg.connect(dsn) as connection:
        info = connection.info
        host, port, user, dbname = info.host, info.port, info.user, info.dbname
        password = f"password={info.password}" if info.password else ""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = probe.getsockname()[1]
    # Not tmp_path: as root it runs as nobody, who may not enter pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="dn-pooler-"))
    folder.chmod(0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(host=host, port=port, user=user, password=password, listen=listen)
    )
    # It refuses to be root; a server of root's runs as nobody too, and lets in only nobody.
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    process = subprocess.Popen(
        [program, "--quiet", str(settings)],
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        stderr=subprocess.DEVNULL,
    )
    through = f"postgresql://{quote(user)}@127.0.0.1:{listen}/{quote(dbname)}"

    def answers() -> bool:
        assert process.poll() is None, "pgbouncer did not start"
        try:
            psycopg.connect(through, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        eventually(answers)
        yield through
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
