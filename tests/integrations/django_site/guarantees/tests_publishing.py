"""Publishing joins atomic(); consumers see what was committed, each message with a connection."""

import json
import threading
from io import StringIO
from typing import Any
from unittest import mock

import psycopg
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from shop.models import Order

import durable_notify as dn
from durable_notify import schema, testing
from durable_notify.integrations.django import Consumer, dsn
from durable_notify.integrations.django.discovery import every_consumer
from durable_notify.integrations.django.test import MessagesMixin
from guarantees.consumers import early, seen
from tests.support.wait import eventually

publisher = dn.Publisher()
OPTIONS: Any = {"until_empty": True, "poll_interval": None, "maintenance": False}


def committed(topic: str) -> list[Any]:
    """What another session sees."""
    with psycopg.connect(dsn()) as other:
        return [message.payload for message in testing.published(other, topic)]


class Publishing(MessagesMixin, TransactionTestCase):
    def test_a_block_that_rolls_back_leaves_nothing(self) -> None:
        try:
            with transaction.atomic():
                Order.objects.create(item="tea")
                publisher.publish(connection, "orders", 1)
                raise KeyError
        except KeyError:
            pass
        assert committed("orders") == []
        with transaction.atomic():
            publisher.publish(connection, "orders", 2)
            assert committed("orders") == []
            try:
                with transaction.atomic():
                    publisher.publish(connection, "orders", "in a savepoint")
                    raise KeyError
            except KeyError:
                pass
        assert committed("orders") == [2]
        publisher.publish(connection, "orders", 3)  # autocommit
        assert committed("orders") == [2, 3]

    def test_a_broken_transaction_is_refused(self) -> None:
        with transaction.atomic():
            Order.objects.create(pk=1, item="tea")
            try:
                Order.objects.create(pk=1, item="tea")
            except IntegrityError:
                pass
            try:
                publisher.publish(connection, "orders", 1)
            except transaction.TransactionManagementError:
                pass
            else:
                raise AssertionError
            transaction.set_rollback(True)
        assert committed("orders") == []


class Consuming(MessagesMixin, TransactionTestCase):
    def test_a_consumer_made_before_the_test_database(self) -> None:
        """It must not read the database of the settings."""
        publisher.publish(connection, "early", 1)
        assert connection.settings_dict["NAME"].startswith("test_")
        early.run()
        assert seen == [1]

    def backends(self, handler: Any = None) -> list[int]:
        """The backends of Django's connection in handlers of three messages, one after another."""
        publisher.publish_many(connection, "orders", range(3))
        pids = []

        def handle(message: dn.Message) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pids.append((threading.get_ident(), cursor.fetchone()[0]))

        Consumer(group="g", topics=["orders"], **OPTIONS).run(handler or handle)
        assert len({thread for thread, _ in pids}) <= 1
        return [pid for _, pid in pids]

    def test_each_message_has_a_connection(self) -> None:
        pids = self.backends()
        assert len(set(pids)) == 3
        self.assert_gone(pids)

    def assert_gone(self, pids: list[int]) -> None:
        count = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s)"
        with psycopg.connect(
            dsn(), autocommit=True
        ) as other:  # the server ends them a moment later
            eventually(lambda: other.execute(count, [pids]).fetchone() == (0,))

    def test_conn_max_age(self) -> None:
        with mock.patch.dict(connections.settings["default"], CONN_MAX_AGE=None):
            pids = self.backends()
            assert len(set(pids)) == 1
            self.assert_gone(pids)  # with the threads of the consumer

    def test_a_broken_connection_is_replaced(self) -> None:
        attempts = []

        def handle(message: dn.Message) -> None:
            attempts.append(message.payload)
            with connection.cursor() as cursor:
                if len(attempts) == 1:
                    cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
                cursor.execute("SELECT 1")

        with mock.patch.dict(connections.settings["default"], CONN_MAX_AGE=None):
            publisher.publish(connection, "orders", 1)
            rules = {OperationalError: dn.Retry(0)}
            Consumer(group="g", topics=["orders"], on_error=rules, **OPTIONS).run(handle)
        assert attempts == [1, 1]

    def test_queries_do_not_pile_up(self) -> None:
        counts = []

        def handle(message: dn.Message) -> None:
            Order.objects.count()
            counts.append(len(connection.queries))

        with (
            self.settings(DEBUG=True),
            mock.patch.dict(connections.settings["default"], CONN_MAX_AGE=None),
        ):
            self.backends(handle)
        assert len(set(counts)) == 1

    def test_effect_and_acknowledgement_commit_together(self) -> None:
        publisher.publish(connection, "orders", 1)
        consumer = Consumer(group="g", **OPTIONS, on_error={KeyError: dn.Retry(0)})

        @consumer.on("orders", transaction=connection)
        def handle(message: dn.Message, _: Any) -> None:
            Order.objects.create(item=f"attempt {message.attempt}")
            publisher.publish(connection, "done", message.attempt)
            if message.attempt == 1:
                raise KeyError

        consumer.run()
        assert [order.item for order in Order.objects.all()] == ["attempt 2"]
        assert committed("done") == [2]

    def test_every_consumer(self) -> None:
        groups = [consumer.options.group.name for consumer in every_consumer()]
        assert groups == ["confirmations", "early", "django-tasks"]


class WithoutADatabase(SimpleTestCase):
    def test_other_databases_are_refused(self) -> None:
        lite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        connections.settings["lite"] = connections.configure_settings({"default": lite})["default"]
        try:
            with self.assertRaisesRegex(
                dn.errors.UnsupportedConnection, "'lite' is not PostgreSQL"
            ):
                dsn("lite")
        finally:
            del connections.settings["lite"]

    def test_settings_become_a_dsn(self) -> None:
        given = {"sslmode": "disable", "assume_role": "writer", "pool": {"min_size": 1}}
        with mock.patch.dict(
            connections["default"].settings_dict, OPTIONS=given, USER="ann", PASSWORD="a b'c"
        ):
            found = psycopg.conninfo.conninfo_to_dict(dsn())
        assert (found["user"], found["password"], found["sslmode"]) == ("ann", "a b'c", "disable")
        assert found["options"] == "-c role=writer"


class Kit(MessagesMixin, TestCase):
    def test_nothing_of_another_test_is_there(self) -> None:
        self.assertNotPublished("orders")
        publisher.publish(connection, "orders", 1)
        assert committed("orders") == []
        self.assertPublished("orders", payload=1, count=1)
        with self.assertRaisesRegex(AssertionError, "the nearest is"):
            self.assertPublished("orders", payload=2)

    def test_what_handlers_publish_is_delivered_too(self) -> None:
        placed = dn.Topic("placed", list[int])
        consumer = Consumer(group="g", **OPTIONS)

        @consumer.on(placed, transaction=connection)
        def handle(message: dn.Message[list[int]], _: Any) -> None:
            if message.payload[0] < 3:
                publisher.publish(connection, placed, [message.payload[0] + 1])
            Order.objects.create(item=str(message.payload))

        publisher.publish(connection, placed, [1])
        assert len(self.drain(consumer).handled) == 3
        assert len(self.drain(consumer).handled) == 0
        assert [order.item for order in Order.objects.all()] == ["[1]", "[2]", "[3]"]

    def test_how_messages_are_settled(self) -> None:
        consumer = Consumer(group="g", topics=["orders.*"], **OPTIONS)
        publisher.publish_many(connection, "orders.x", ["ok", "retry", "reject"])
        publisher.publish(connection, "others", "ok")

        def handle(message: dn.Message) -> None:
            {"retry": message.retry, "reject": lambda: message.reject("no")}.get(
                message.payload, message.ack
            )()

        drained = self.drain(consumer, handle)
        found = [drained.handled, drained.retried, drained.dead]
        assert [[m.payload for m in some] for some in found] == [["ok"], ["retry"], ["reject"]]
        publisher.publish(connection, "orders.x", "raise")
        with self.assertRaises(ZeroDivisionError):
            self.drain(consumer, lambda message: 1 / 0)


class Commands(MessagesMixin, TransactionTestCase):
    def test_the_command_line(self) -> None:
        publisher.publish(connection, "orders", 1)
        output = StringIO()
        call_command("durable_notify", "status", "--json", stdout=output)
        assert [line["topic"] for line in json.loads(output.getvalue())] == ["orders"]
        with self.assertRaises(SystemExit) as caught:
            call_command("durable_notify", "nonsense")
        assert caught.exception.code == 2

    def test_migrations(self) -> None:
        from django.db.migrations.loader import MigrationLoader

        call_command("makemigrations", "--check", "--dry-run", verbosity=0)
        ours = [
            name
            for label, name in MigrationLoader(None).disk_migrations
            if label == "durable_notify"
        ]
        revisions = {step.revision for step in schema.steps("base", "head")}
        assert {name.partition("_")[0] for name in ours} == revisions
        call_command("migrate", "durable_notify", "zero", verbosity=0)
        with psycopg.connect(dsn()) as other, self.assertRaises(dn.errors.SchemaMissing):
            schema.check(other)
        call_command("migrate", verbosity=0)
        with psycopg.connect(dsn()) as other:
            schema.check(other)

    def test_dumpdata(self) -> None:
        output = StringIO()
        call_command("dumpdata", "durable_notify", stdout=output)
        call_command("dumpdata", "durable_notify", "--all", stdout=output)
        assert output.getvalue().replace("\n", "") == "[][]"
