"""structlog: events, and which message an entry is about."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import structlog

from ..events import Event
from ..middleware import Middleware
from .logs import fields_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..middleware import Handling

__all__ = ["LogContext", "StructlogEvents"]


class StructlogEvents:
    """Logs events by structlog; give it as ``on_event``.

    The event's name is structlog's event, and its fields are bound to it. The levels are those of
    ``integrations.logs``.

    Args:
        logger: the logger; by default ``structlog.get_logger("durable_notify.events")``.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger or structlog.get_logger("durable_notify.events")

    def __call__(self, event: Event) -> None:
        """Log an event."""
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        self._logger.log(event.level, event.name, **fields)


class LogContext(Middleware):
    """Binds the message that a handler has to structlog's context; give it as ``middleware``.

    The fields are those of ``integrations.logs.LogContext``. structlog's configuration needs
    ``structlog.contextvars.merge_contextvars``, which its default has.
    """

    def handling(self, call: Handling, /) -> AbstractContextManager[None]:
        """Bind the fields while a handler runs."""
        return structlog.contextvars.bound_contextvars(**fields_of(call))
