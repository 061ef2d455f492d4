"""W3C trace context in headers, to trace where a message comes from with OpenTelemetry."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..payloads import NewMessage

__all__ = ["context_of", "with_trace"]


def with_trace(message: NewMessage[Any]) -> NewMessage[Any]:
    """Add the current span's context to a message's headers, unless they have one."""
    if "opentelemetry.trace" not in sys.modules:  # not imported: there is no span
        return message
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if not carrier or "traceparent" in (message.headers or {}):
        return message
    return dataclasses.replace(message, headers={**(message.headers or {}), **carrier})


def context_of(headers: Mapping[str, Any]) -> Any:
    """Return the OpenTelemetry context that a message's headers carry, to start a span in.

    Raises:
        ImportError: opentelemetry-api is not installed.
    """
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name: value for name, value in headers.items() if isinstance(value, str)}
    return TraceContextTextMapPropagator().extract(carrier)
