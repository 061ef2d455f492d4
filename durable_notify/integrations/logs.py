"""Events as records of the standard library's logging."""

from __future__ import annotations

import dataclasses
import logging

from ..events import Event

__all__ = ["LogEvents"]


#: The words for fields that are None; other such fields are left out.
_UNSAID = {"delay": "backoff"}


class LogEvents:
    """Logs events; give it as ``on_event``.

    A record's message is the event as text, ``claimed group=billing topic=orders ...``, for people.
    Its attributes ``event`` and those of the event's fields are for JSON formatters. Routine events
    are logged at DEBUG, important ones at INFO, and problems at WARNING.

    Args:
        logger: the logger; by default ``durable_notify.events``.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("durable_notify.events")

    def __call__(self, event: Event) -> None:
        """Log an event."""
        if not self._logger.isEnabledFor(event.level):
            return
        fields = {field.name: getattr(event, field.name) for field in dataclasses.fields(event)}
        words = " ".join(
            f"{name}={_UNSAID[name] if value is None else value}"
            for name, value in fields.items()
            if value is not None or name in _UNSAID
        )
        extra = {"event": event.name, **fields}
        self._logger.log(event.level, "%s %s", event.name, words, extra=extra)
