"""The kit in suites of other kinds: Django's, one that truncates all tables, and several workers."""

from __future__ import annotations

import os

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.docs.pages import blocks
from tests.support.postgres import CHECKOUT, Postgres
from tests.testing.projects import run

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", **{database!r}}}}}
"""
MODELS = """
from django.db import models

class Order(models.Model):
    number = models.IntegerField()
    invoiced = models.BooleanField(default=False)
"""
FIRST = """
from django.db import migrations, models

class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True)),
            ("number", models.IntegerField()),
            ("invoiced", models.BooleanField(default=False)),
        ]),
    ]
"""
MORE_TESTS = """
import pytest
from django.db import connection

from durable_notify import testing
from test_shop import Handling, Publishing, place_order

@pytest.mark.django_db
@pytest.mark.parametrize("order", [1, 2])
def test_of_pytest_django(order):
    place_order(order)
    testing.assert_published(connection, "orders", payload={"order": order}, count=1)

@pytest.mark.django_db(transaction=True)
def test_that_commits():
    testing.reset(connection)
    place_order(1)
    testing.assert_published(connection, "orders", count=1)
"""


def test_django(
    project: pytest.Pytester, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the page. In another process: Django can be set up only once in one."""
    page = blocks(CHECKOUT / "docs" / "testing.md")
    databases, migration, tests = (
        block.text for block in page if block.mark == "not run" and block.language == "python"
    )
    given = conninfo_to_dict(server.admin_dsn)
    names = {
        "dbname": "NAME",
        "user": "USER",
        "password": "PASSWORD",
        "host": "HOST",
        "port": "PORT",
    }
    database = {theirs: str(given[ours]) for ours, theirs in names.items() if ours in given}
    project.makepyfile(
        **{
            "site_settings": SETTINGS.format(database=database),
            "shop/__init__": "", "shop/models": MODELS, "shop/databases": databases, "shop/migrations/__init__": "",
            "shop/migrations/0001_initial": FIRST, "shop/migrations/0002_durable_notify": migration,
            "test_shop": tests, "test_more": MORE_TESTS,
        }
    )  # fmt: skip
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    monkeypatch.setenv("PYTHONPATH", str(project.path), prepend=os.pathsep)
    result = project.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=7)


def test_a_suite_that_truncates_all_tables(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import psycopg
        import pytest
        import durable_notify as dn
        from durable_notify import testing

        ALL = '''
            SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema')'''

        @pytest.fixture(autouse=True)
        def empty(durable_notify_shared_dsn):
            yield
            with psycopg.connect(durable_notify_shared_dsn) as connection:
                (tables,) = connection.execute(ALL).fetchone()
                connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
                testing.reset(connection)

        @pytest.mark.parametrize("run", [1, 2])
        def test_it(durable_notify_shared_dsn, run):
            with psycopg.connect(durable_notify_shared_dsn) as connection:
                dn.Publisher().publish(connection, "t", run)
                testing.assert_published(connection, "t", count=1)
            consumer = dn.Consumer(durable_notify_shared_dsn, group="g", topics=["t"])
            assert [m.payload for m in testing.drain(consumer, lambda m: None).handled] == [run]
        """
    )
    run(project).assert_outcomes(passed=2)


@pytest.mark.slow
def test_several_workers(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import psycopg
        import pytest
        import durable_notify as dn
        from durable_notify import testing

        @pytest.mark.parametrize("run", range(6))
        def test_it(durable_notify_dsn, durable_notify_connection, run):
            with psycopg.connect(durable_notify_dsn) as connection:
                dn.Publisher().publish(connection, "t", run)
            dn.Publisher().publish(durable_notify_connection, "t", run)
            testing.assert_published(durable_notify_connection, "t", count=1)
            consumer = dn.Consumer(durable_notify_dsn, group="g", topics=["t"])
            assert [m.payload for m in testing.drain(consumer, lambda m: None).handled] == [run]
        """
    )
    project.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider").assert_outcomes(passed=6)
