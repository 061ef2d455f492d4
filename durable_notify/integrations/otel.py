"""OpenTelemetry: traces from the publisher to the handler, and metrics.

They follow the semantic conventions for messaging. These are in development, so names may change.
Needs the extra ``otel``, and an SDK that the application configures. Publishers put the span into
the headers ``traceparent`` and ``tracestate``; the handler of the message continues it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanKind

from .. import events
from .._core.tracing import context_of
from .._version import __version__
from ..events import name_of
from ..middleware import Handling, Middleware

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ..middleware import Publishing

__all__ = ["Metrics", "Tracing", "context_of", "processing"]

SYSTEM = "durable_notify"
#: The buckets that the conventions advise.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def _attributes(operation: str, topic: str, group: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
    }
    if group is not None:
        found["messaging.consumer.group.name"] = group
    return found


class Tracing(Middleware):
    """Spans around publishing and around handlers; give it as ``middleware``.

    ``send <topic>`` is around each call of a publisher, and its messages carry it. ``process
    <topic>`` is around each call of a handler: see ``processing``.

    Args:
        tracer_provider: by default the global one.
    """

    def __init__(self, *, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(SYSTEM, __version__, tracer_provider)

    def publishing(self, call: Publishing, /) -> Iterator[None]:
        """Run publishing in a span."""
        attributes = {**_attributes("send", call.topic), "messaging.operation.type": "send"}
        with (
            self._tracer.start_as_current_span(
                f"send {call.topic}", kind=SpanKind.PRODUCER, attributes=attributes
            ) as span,
            _error_type(span),
        ):
            yield
            if call.is_batch:
                span.set_attribute("messaging.batch.message_count", len(call.ids))
            else:
                span.set_attribute("messaging.message.id", str(call.ids[0]))

    def handling(self, call: Handling, /) -> contextlib.AbstractContextManager[Span]:
        """Run a handler in a span."""
        return _processing(self._tracer, call)


@contextlib.contextmanager
def _error_type(span: Span) -> Iterator[None]:
    """Record the type of an exception that passes; the span records the rest itself."""
    try:
        yield
    except Exception as error:
        span.set_attribute("error.type", name_of(error))
        raise


def processing(
    argument: Any, *, tracer_provider: TracerProvider | None = None
) -> contextlib.AbstractContextManager[Span]:
    """Run the body in a span ``process <topic>``, for a loop over a consumer.

    It links to the span that published the message, and is a child of it if the caller has no
    span of its own. For a batch, a list of messages, it links to all.

    Args:
        argument: a message, or a list of messages.
        tracer_provider: by default the global one.
    """
    is_batch = isinstance(argument, list)
    messages = argument if is_batch else [argument]
    tracer = trace.get_tracer(SYSTEM, __version__, tracer_provider)
    group = messages[0]._lease_manager.group  # noqa: SLF001
    return _processing(tracer, Handling(group, messages, is_batch))


@contextlib.contextmanager
def _processing(tracer: trace.Tracer, call: Handling) -> Iterator[Span]:
    first = call.messages[0]
    contexts = [context_of(message.headers) for message in call.messages]
    origins = [trace.get_current_span(context).get_span_context() for context in contexts]
    alone = not call.is_batch and not trace.get_current_span().get_span_context().is_valid
    topics = {message.topic for message in call.messages}
    topic = first.topic if len(topics) == 1 else "several"
    attributes = _attributes("process", topic, call.group)
    attributes["messaging.operation.type"] = "process"
    if call.is_batch:
        attributes["messaging.batch.message_count"] = len(call.messages)
    else:
        attributes["messaging.message.id"] = str(first.id)
        attributes["durable_notify.attempt"] = first.attempt
    with (
        tracer.start_as_current_span(
            f"process {topic}",
            context=contexts[0] if alone else None,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=[Link(origin) for origin in origins if origin.is_valid],
        ) as span,
        _error_type(span),
    ):
        yield span


class Metrics:
    """Measures events; give it as ``on_event``.

    Args:
        meter_provider: by default the global one.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = metrics.get_meter(SYSTEM, __version__, meter_provider)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Messages published."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Messages claimed."
        )
        self._operation = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "How long publishing, claiming and settling took the database.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._process = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long handlers took.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def __call__(self, event: events.Event) -> None:
        """Measure an event, if the conventions have a metric for it."""
        if isinstance(event, events.Published):
            labels = _attributes("send", event.topic)
            self._sent.add(event.messages, labels)
            self._took(event.seconds, labels, "send")
        elif isinstance(event, events.Claimed):
            labels = _attributes("claim", event.topic, event.group)
            self._consumed.add(event.messages, labels)
            self._took(event.seconds, labels, "receive")
        elif isinstance(event, events.Settled) and not event.in_transaction:
            self._took(event.seconds, _attributes("settle", event.topic, event.group), "settle")
        elif isinstance(event, events.Handled):
            labels = _attributes("process", event.topic, event.group)
            if event.error is not None:
                labels["error.type"] = event.error
            self._process.record(event.seconds, labels)

    def _took(self, seconds: float, labels: Mapping[str, Any], kind: str) -> None:
        self._operation.record(seconds, {**labels, "messaging.operation.type": kind})
