"""Django runs the tests of its application, and a consumer of the example.

Django can be set up once in a process, so these are processes. `tasks.py django` runs the same tests on every
supported Django.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from tests.support.examples import started
from tests.support.postgres import CHECKOUT
from tests.support.wait import eventually

SHOP = CHECKOUT / "examples" / "django_shop"
SITE = Path(__file__).parent / "django_site"
TIMEOUT = 110


def django(dsn: str, *arguments: str, settings: str = "settings") -> str:
    """Run a command of Django, and return what it prints."""
    environ = os.environ | {
        "DURABLE_NOTIFY_DSN": dsn,
        "DJANGO_SETTINGS_MODULE": settings,
        "PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT, SHOP, SITE))),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", *arguments],
        env=environ, cwd=SHOP, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_what_the_application_promises(empty_dsn: str) -> None:
    """The example's own tests, too."""
    said = django(
        empty_dsn, "test", "--noinput", "guarantees", "shop", settings="guarantee_settings"
    )
    assert "Ran 32 tests" in said


ONE = pytest.param(["shop.consumers:confirmations"], marks=pytest.mark.slow)


@pytest.mark.parametrize("told", [[], ONE])
def test_run(empty_dsn: str, told: list[str]) -> None:
    """The command finds the consumers, those of tasks as well, and stops as an operator does it."""
    django(empty_dsn, "migrate", "--verbosity", "0")
    command = (sys.executable, "manage.py", "durable_notify", "run", *told)
    count = "SELECT count(*) FROM shop_order WHERE confirmed AND receipts = %s"
    with (
        psycopg.connect(empty_dsn, autocommit=True) as conn,
        started(*command, dsn=empty_dsn, cwd=SHOP) as program,
    ):
        conn.execute("INSERT INTO shop_order VALUES (1, 'tea', false, 0)")
        dn.Publisher().publish(conn, "orders", {"order": 1}, key="1")
        eventually(lambda: conn.execute(count, [0 if told else 1]).fetchone() == (1,))
        assert program.end() == 0
        testing.assert_published(conn, "django.tasks.default", count=1)


@pytest.mark.slow
def test_reload(empty_dsn: str, tmp_path: Path) -> None:
    """A change of the code starts the consumers again."""
    django(empty_dsn, "migrate", "--verbosity", "0")
    (tmp_path / "manage.py").write_text(
        "import sys\nfrom django.core.management import execute_from_command_line\n"
        "print('started', flush=True)\nexecute_from_command_line(sys.argv)\n"
    )
    command = (sys.executable, "manage.py", "durable_notify", "run", "--reload")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_SETTINGS_MODULE", "settings")
        patch.setenv("PYTHONPATH", str(SHOP))
        with (
            psycopg.connect(empty_dsn, autocommit=True) as conn,
            started(*command, dsn=empty_dsn, cwd=tmp_path) as program,
        ):
            query = "SELECT pid FROM pg_stat_activity WHERE query ILIKE '%listen%' AND pid <> pg_backend_pid()"
            lines = [program.line(), program.line()]  # the one that watches, and the first
            assert lines == ["started", "started"]
            eventually(lambda: conn.execute(query).fetchall())
            before = conn.execute(query).fetchall()
            (tmp_path / "changed.py").write_text("")
            while program.line() != "started":
                pass
            eventually(lambda: conn.execute(query).fetchall() not in ([], before))
            program.process.send_signal(signal.SIGINT)
            program.process.wait(20)
