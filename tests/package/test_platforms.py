"""What only POSIX has stands in one module; the rest loads without it, as on Windows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgres import CHECKOUT

PACKAGE = CHECKOUT / "durable_notify"
ONLY_POSIX = re.compile(
    r"^\s*(?:import|from) (?:fcntl|pwd|grp|termios|tty|resource)\b"
    r"|\b(?:register_at_fork|geteuid|getuid|add_signal_handler|select\.poll|start_new_session)\b"
    r"|\bos\.(?:fork|kill|killpg|chown|setsid|sched_\w+)\b|O_RDONLY|AF_UNIX|\"/proc/|\"/dev/"
    r"|\bsignal\.SIG(?:KILL|QUIT|USR1|STOP|CONT|HUP)\b",
    re.MULTILINE,
)
#: They need a server that is killed and stopped as POSIX does, and say so.
SERVERS = ("embedded.py", "torture/", "demo/", "testing/databases.py")

WINDOWS = """if True:
    import importlib, os, pkgutil, select, signal, sys, threading
    import alembic, asyncio, click, platformdirs, psycopg, rich, sqlalchemy, subprocess
    for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
        sys.modules[name] = None
    gone = [(os, "register_at_fork"), (os, "fork"), (os, "geteuid"), (os, "getuid"),
            (os, "sched_yield"), (select, "poll"), (select, "PIPE_BUF")]
    gone += [(signal, f"SIG{name}") for name in ("KILL", "QUIT", "USR1", "STOP", "CONT", "HUP")]
    for module, name in gone:
        delattr(module, name)
    import durable_notify
    LEFT_OUT = ("durable_notify.torture", "durable_notify.demo", "durable_notify.migrations",
                "durable_notify.integrations", "durable_notify.brokers", "durable_notify.web")
    for found in pkgutil.walk_packages(durable_notify.__path__, "durable_notify."):
        if not found.name.startswith(LEFT_OUT):
            importlib.import_module(found.name)
    from click.testing import CliRunner
    from durable_notify import archive, cli, embedded, errors
    done = CliRunner().invoke(cli.cli, ["migrate", "--sql"])
    assert done.exit_code == 0, done.output
    assert "CREATE TABLE durable_notify.outbox" in done.output
    try:
        embedded.shared_dsn()
    except errors.EmbeddedError as error:
        print(error)
    for kind in (archive.NdjsonFiles, archive.ParquetFiles):
        try:
            kind("folder")
        except errors.InvalidArgument as error:
            print(error)

    publisher, seen = durable_notify.Publisher(), []
    def publish(number):
        with psycopg.connect(sys.argv[1]) as connection:
            publisher.publish(connection, "t", number)
    publish(1)
    consumer = durable_notify.Consumer(sys.argv[1], group="g", topics=["t"], poll_interval=None)
    with consumer:
        for message in consumer:
            seen.append(message.payload)
            if len(seen) == 2:
                break
            threading.Timer(0.2, publish, [2]).start()  # once it sleeps
    print(seen)
"""


def test_posix_is_in_one_place() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if ONLY_POSIX.search(path.read_text(encoding="utf-8"))
    }
    assert {name for name in found if not name.startswith(SERVERS)} == {"_core/posix.py"}


def test_a_call_elsewhere_is_seen() -> None:
    """Else the test above could not fail."""
    assert ONLY_POSIX.search("x = 1\n    import fcntl\n")
    assert ONLY_POSIX.search("os.register_at_fork(x)")
    assert ONLY_POSIX.search("os.kill(pid, 9)")
    assert ONLY_POSIX.search("stop(signal.SIGKILL)")
    assert ONLY_POSIX.search('Path(f"/proc/self/fd")')


def test_it_works_without_posix(dsn: str) -> None:
    command = [sys.executable, "-c", WINDOWS, dsn]
    done = subprocess.run(command, cwd=CHECKOUT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The embedded PostgreSQL needs POSIX.")
    assert done.stdout.count("Archives of files need POSIX") == 2
    assert done.stdout.endswith("[1, 2]\n")


@pytest.mark.parametrize("name", ["README.md", "docs/versions.md"])
def test_the_pages_name_the_platforms(name: str) -> None:
    text = Path(CHECKOUT / name).read_text(encoding="utf-8")
    for word in ("Linux", "macOS", "Windows"):
        assert word in text
