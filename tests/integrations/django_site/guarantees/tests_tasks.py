"""The backend of Django's tasks."""

import datetime
from typing import Any

from django.db import connection, transaction
from django.test import TransactionTestCase
from django.utils import timezone

import durable_notify as dn
from durable_notify.integrations.django.tasks import TaskBackend, kit, task_consumers
from durable_notify.integrations.django.test import MessagesMixin
from guarantees import sample_tasks

TOPIC = "django.tasks.default"


class Tasks(MessagesMixin, TransactionTestCase):
    def setUp(self) -> None:
        sample_tasks.reports.clear()

    def drained(self, **options: Any) -> Any:
        (consumer,) = task_consumers()
        return self.drain(consumer, **options)

    def test_a_task_joins_the_transaction(self) -> None:
        with transaction.atomic():
            result = sample_tasks.add.enqueue(1, other=2)
            transaction.set_rollback(True)
        self.assertNotPublished(TOPIC)
        with transaction.atomic():
            result = sample_tasks.add.enqueue(1, other=2)
        (message,) = self.assertPublished(TOPIC, count=1)
        assert result.id == str(message.id)
        assert result.status == kit.TaskResultStatus.READY
        assert (result.args, result.kwargs) == ([1], {"other": 2})
        assert sample_tasks.reports == []
        (consumer,) = task_consumers()
        consumer.run()
        assert sample_tasks.reports == [3]

    def test_a_deferred_task(self) -> None:
        later = timezone.now() + datetime.timedelta(hours=1)
        sample_tasks.add.using(run_after=later).enqueue(1, 2)
        (message,) = self.assertPublished(TOPIC)
        assert message.deliver_at == later
        assert self.drained().handled == []
        self.drained(skip_delays=True)
        assert sample_tasks.reports == [3]

    def test_a_coroutine_in_another_queue(self) -> None:
        sample_tasks.waits.enqueue()
        self.assertPublished("django.tasks.slow")
        self.drained()
        assert sample_tasks.reports == ["waited"]

    def test_context_and_signals(self) -> None:
        told: list[Any] = []

        def tell(sender: Any, task_result: Any, **_: Any) -> None:
            told.append((sender, task_result.status, task_result.id))

        signals = sample_tasks.signals
        for signal in (signals.task_enqueued, signals.task_started, signals.task_finished):
            signal.connect(tell)
            self.addCleanup(signal.disconnect, tell)
        result = sample_tasks.in_context.enqueue(word="x")
        self.drained()
        assert sample_tasks.reports == [("x", 1, result.id, "RUNNING", False)]
        states = ["READY", "RUNNING", "SUCCESSFUL"]
        assert told == [(TaskBackend, state, result.id) for state in states]

    def test_a_task_that_fails_is_retried(self) -> None:
        sample_tasks.broken.enqueue()
        drained = self.drained(raise_errors=False)
        assert [str(error) for error in drained.errors] == ["broken"]
        assert len(drained.retried) == 1

    def test_a_task_that_does_not_exist_is_given_up(self) -> None:
        publisher = dn.Publisher()
        for name in ("guarantees.sample_tasks.gone", "guarantees.sample_tasks.reports", "x", None):
            publisher.publish(connection, TOPIC, {"task": name, "args": [], "kwargs": {}})
        assert len(self.drained().dead) == 4

    def test_what_is_not_supported(self) -> None:
        error = type("", (Exception,), {})
        with self.assertRaisesRegex(Exception, "priority"):
            sample_tasks.add.using(priority=7)
        with self.assertRaises(NotImplementedError):
            sample_tasks.add.get_result("1")
        with self.assertRaises(TypeError):
            sample_tasks.add.enqueue(error)
        self.assertNotPublished(TOPIC)
        backend = kit.task_backends["default"]
        assert (backend.supports_defer, backend.supports_async_task) == (True, True)
        assert (backend.supports_get_result, backend.supports_priority) == (False, False)
