"""The standard library's logging: events as records, and which message a record is about."""

from __future__ import annotations

import contextvars
import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from ..events import Event
from ..middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..middleware import Handling

__all__ = ["LogContext", "LogEvents", "fields_of"]


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


def fields_of(call: Handling) -> dict[str, Any]:
    """Return what log records tell of a handler's call; no key or payload.

    Of a batch, they tell how many messages it has.
    """
    if call.is_batch:
        return {"group": call.group, "messages": len(call.messages)}
    message = call.messages[0]
    return {
        "group": call.group, "topic": message.topic, "message_id": message.id,
        "attempt": message.attempt,
    }  # fmt: skip


_NAMES = ("group", "topic", "message_id", "attempt", "messages")
_current: contextvars.ContextVar[Handling | None] = contextvars.ContextVar(
    "durable_notify handling", default=None
)


class LogContext(Middleware, logging.Filter):
    """Adds the message that a handler has to its log records: a middleware and a filter in one.

    Give it as ``middleware``, and to your log handlers by ``addFilter``. Each record then has the
    attributes ``group``, ``topic``, ``message_id``, ``attempt`` and, for a batch, ``messages``.
    They are None outside of handlers. Those that a record has already stay.
    """

    def handling(self, call: Handling, /) -> Iterator[None]:
        """Set the fields while a handler runs."""
        token = _current.set(call)
        try:
            yield
        finally:
            _current.reset(token)

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields to a record; lets every record pass."""
        call = _current.get()
        fields = {} if call is None else fields_of(call)
        for name in _NAMES:
            if not hasattr(record, name):
                setattr(record, name, fields.get(name))
        return True
