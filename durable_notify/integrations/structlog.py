"""Events for structlog."""

from __future__ import annotations

import dataclasses
from typing import Any

import structlog

from ..events import Event

__all__ = ["StructlogEvents"]


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
