"""The kit in suites of other kinds: Django's, one that truncates all tables, and several workers."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import Postgres
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
"""
FIRST = """
from django.db import migrations, models

class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True)),
            ("number", models.IntegerField()),
        ]),
    ]
"""
SECOND = """
from django.db import migrations
from psycopg.conninfo import make_conninfo

from durable_notify import schema

def migrate(apps, editor):
    given = editor.connection.settings_dict
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    schema.migrate(make_conninfo(**{name: given[theirs] or None for name, theirs in names.items()}))

class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(migrate, migrations.RunPython.noop)]
"""
TESTS = """
import pytest
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify import testing
from shop.models import Order

publisher = dn.Publisher()

def place(number):
    with transaction.atomic():
        Order.objects.create(number=number)
        publisher.publish(connection.connection, "orders", {"order": number})

def dsn():
    given = connection.settings_dict
    return make_conninfo(dbname=given["NAME"], user=given["USER"], host=given["HOST"], port=given["PORT"])

class RolledBack(TestCase):
    def test_one(self):
        place(1)
        testing.assert_published(connection.connection, "orders", payload={"order": 1}, count=1)

    test_again = test_one

class Committed(TransactionTestCase):
    def setUp(self):
        connection.ensure_connection()
        testing.reset(connection.connection)

    def test_one(self):
        place(1)

        def handle(message):
            Order.objects.filter(number=message.payload["order"]).update(number=100)

        consumer = dn.Consumer(dsn(), group="billing", topics=["orders"])
        assert len(testing.drain(consumer, handle).handled) == 1
        assert Order.objects.get().number == 100

    test_again = test_one

@pytest.mark.django_db
@pytest.mark.parametrize("run", [1, 2])
def test_of_pytest_django(run):
    place(run)
    testing.assert_published(connection.connection, "orders", payload={"order": run}, count=1)
"""


def test_django(
    project: pytest.Pytester, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            "shop/__init__": "", "shop/models": MODELS, "shop/migrations/__init__": "",
            "shop/migrations/0001_initial": FIRST, "shop/migrations/0002_durable_notify": SECOND,
            "test_shop": TESTS,
        }
    )  # fmt: skip
    project.syspathinsert()
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    run(project).assert_outcomes(passed=6)


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
