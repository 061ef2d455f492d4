"""A backend of Django's tasks: a task is a message, enqueued in your own transaction.

It is for ``django.tasks`` of Django 6.0 and later, and for the package ``django-tasks`` before.
Tasks can be deferred. Results and priorities are not supported: a log has neither. See
``docs/django.md``.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.utils import timezone
from django.utils.module_loading import import_string

try:
    from django import tasks as kit
    from django.tasks import base, signals
    from django.tasks.backends.base import BaseTaskBackend
except ImportError:
    import django_tasks as kit  # type: ignore[no-redef]
    from django_tasks import base, signals  # type: ignore[no-redef]
    from django_tasks.backends.base import BaseTaskBackend  # type: ignore[assignment]

from durable_notify._sync.publisher import Publisher

from .consumer import Consumer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from durable_notify._sync.consumer.message import Message
    from durable_notify.groups import Group

__all__ = ["TaskBackend", "task_consumers"]


class TaskBackend(BaseTaskBackend):
    """Enqueues tasks as messages, and has the consumer that runs them.

    A task of the queue ``default`` is a message of the topic ``django.tasks.default``. Its id is
    the message's. A task that raises is retried by the policy of the group.

    ``OPTIONS`` of the settings:
        ``database``: the alias of the database; ``"default"``.
        ``topic``: what the topics begin with; ``"django.tasks"``.
        ``group``: the consumer group that runs tasks, a name or a ``Group``; ``"django-tasks"``.
        ``consumer``: options of the ``Consumer``, such as ``{"concurrency": 8}``.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = False
    supports_priority = False

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self._using: str = self.options.get("database", DEFAULT_DB_ALIAS)
        self._topic: str = self.options.get("topic", "django.tasks")
        self._group: str | Group = self.options.get("group", "django-tasks")
        self._publisher = Publisher()

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Publish a task in the transaction of its database, and return its result, ``READY``."""
        self.validate_task(task)
        result = self._result(task, "", list(args), dict(kwargs), timezone.now())
        payload = {"task": task.module_path, "args": result.args, "kwargs": result.kwargs}
        due = task.run_after
        message_id = self._publisher.publish(
            connections[self._using],
            f"{self._topic}.{task.queue_name}",
            payload,
            deliver_at=due if due is None or timezone.is_aware(due) else timezone.make_aware(due),
        )
        _set(result, id=str(message_id))
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def consumer(self) -> Consumer:
        """Return a consumer that runs the tasks of all queues."""
        queues = self.queues or {"*"}
        consumer = Consumer(
            group=self._group, using=self._using, **self.options.get("consumer", {})
        )
        for queue in sorted(queues):
            consumer.on(f"{self._topic}.{queue}")(self.run)
        return consumer

    def run(self, message: Message[Any]) -> None:
        """Run the task of a message; one that does not exist is given up at once."""
        payload = message.payload
        try:
            task = import_string(payload["task"])
        except (ImportError, KeyError, TypeError, AttributeError) as error:
            message.reject(f"there is no such task: {error}")
            return
        if not isinstance(task, base.Task):
            message.reject(f"{payload['task']} is no task")
            return
        task = task.using(queue_name=message.topic.removeprefix(f"{self._topic}."))
        published_at = message.published_at
        enqueued_at = published_at if settings.USE_TZ else timezone.make_naive(published_at)
        result = self._result(
            task, str(message.id), payload["args"], payload["kwargs"], enqueued_at
        )
        now = timezone.now()
        workers = [socket.gethostname()] * message.attempt  # as many as attempts
        _set(result, status=base.TaskResultStatus.RUNNING, worker_ids=workers)
        _set(result, started_at=now, last_attempted_at=now)
        signals.task_started.send(type(self), task_result=result)
        context: list[Any] = [base.TaskContext(task_result=result)] if task.takes_context else []
        with self._finishing(result):
            task.call(*context, *result.args, **result.kwargs)

    @contextlib.contextmanager
    def _finishing(self, result: Any) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            path = f"{type(error).__module__}.{type(error).__qualname__}"
            result.errors.append(base.TaskError(exception_class_path=path, traceback=""))
            self._finish(result, base.TaskResultStatus.FAILED)
            raise
        self._finish(result, base.TaskResultStatus.SUCCESSFUL)

    def _finish(self, result: Any, status: Any) -> None:
        _set(result, status=status, finished_at=timezone.now())
        signals.task_finished.send(type(self), task_result=result)

    def _result(self, task: Any, task_id: str, args: Any, kwargs: Any, enqueued_at: Any) -> Any:
        return base.TaskResult(
            task=task, id=task_id, status=base.TaskResultStatus.READY, enqueued_at=enqueued_at,
            started_at=None, last_attempted_at=None, finished_at=None, args=args, kwargs=kwargs,
            backend=self.alias, errors=[], worker_ids=[],
        )  # fmt: skip


def _set(result: Any, **values: Any) -> None:
    """Set attributes of a result, which is frozen: so do Django's own backends."""
    for name, value in values.items():
        object.__setattr__(result, name, value)


def task_consumers() -> list[Consumer]:
    """Return a consumer for each of the settings' backends that is of this library."""
    if not hasattr(settings, "TASKS"):
        return []
    backends = (kit.task_backends[alias] for alias in settings.TASKS)
    return [backend.consumer() for backend in backends if isinstance(backend, TaskBackend)]
