"""OpenTelemetry: traces from the publisher to the handler, and metrics.

They follow the semantic conventions for messaging. These are in development, so names may change.
Needs the extra ``otel``, and an SDK that the application configures. Publishers put the span into
the headers ``traceparent`` and ``tracestate``; the handler of the message continues it.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, SpanKind

from .. import events
from .._async.publisher import AsyncPublisher
from .._core.callables import is_async
from .._core.tracing import context_of
from .._sync.publisher import Publisher
from .._version import __version__
from ..events import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ..topics import Topic

__all__ = ["AsyncTracedPublisher", "Metrics", "TracedPublisher", "processing", "traced"]

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


class TracedPublisher(Publisher):
    """A ``Publisher`` with a span ``send <topic>`` around each call, which its messages carry."""

    def __init__(self, *, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._tracer = trace.get_tracer(SYSTEM, __version__, tracer_provider)

    def publish(self, connection: Any, topic: Any, payload: Any, **options: Any) -> int:
        """Publish, as ``Publisher.publish`` does."""
        with _sending(self._tracer, topic) as span:
            message_id = super().publish(connection, topic, payload, **options)
            span.set_attribute("messaging.message.id", str(message_id))
        return message_id

    def publish_many(self, connection: Any, topic: Any, payloads: Any) -> list[int]:
        """Publish, as ``Publisher.publish_many`` does, in one span."""
        with _sending(self._tracer, topic) as span:
            ids = super().publish_many(connection, topic, payloads)
            span.set_attribute("messaging.batch.message_count", len(ids))
        return ids


class AsyncTracedPublisher(AsyncPublisher):
    """An ``AsyncPublisher`` with a span ``send <topic>`` around each call."""

    def __init__(self, *, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._tracer = trace.get_tracer(SYSTEM, __version__, tracer_provider)

    async def publish(self, connection: Any, topic: Any, payload: Any, **options: Any) -> int:
        """Publish, as ``AsyncPublisher.publish`` does."""
        with _sending(self._tracer, topic) as span:
            message_id = await super().publish(connection, topic, payload, **options)
            span.set_attribute("messaging.message.id", str(message_id))
        return message_id

    async def publish_many(self, connection: Any, topic: Any, payloads: Any) -> list[int]:
        """Publish, as ``AsyncPublisher.publish_many`` does, in one span."""
        with _sending(self._tracer, topic) as span:
            ids = await super().publish_many(connection, topic, payloads)
            span.set_attribute("messaging.batch.message_count", len(ids))
        return ids


@contextlib.contextmanager
def _sending(tracer: trace.Tracer, topic: str | Topic[Any]) -> Iterator[Span]:
    attributes = {**_attributes("send", str(topic)), "messaging.operation.type": "send"}
    with (
        tracer.start_as_current_span(
            f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes
        ) as span,
        _error_type(span),
    ):
        yield span


@contextlib.contextmanager
def _error_type(span: Span) -> Iterator[None]:
    """Record the type of an exception that passes; the span records the rest itself."""
    try:
        yield
    except Exception as error:
        span.set_attribute("error.type", name_of(error))
        raise


@contextlib.contextmanager
def processing(argument: Any, *, tracer_provider: TracerProvider | None = None) -> Iterator[Span]:
    """Run the body in a span ``process <topic>``, for a loop over a consumer.

    It links to the span that published the message, and is a child of it if the caller has no
    span of its own. For a batch, a list of messages, it links to all.

    Args:
        argument: a message, or a list of messages.
        tracer_provider: by default the global one.
    """
    batch = argument if isinstance(argument, list) else [argument]
    first = batch[0]
    tracer = trace.get_tracer(SYSTEM, __version__, tracer_provider)
    contexts = [context_of(message.headers) for message in batch]
    origins = [trace.get_current_span(context).get_span_context() for context in contexts]
    alone = batch is not argument and not trace.get_current_span().get_span_context().is_valid
    topics = {message.topic for message in batch}
    topic = first.topic if len(topics) == 1 else "several"
    attributes = _attributes("process", topic, first._lease_manager.group)  # noqa: SLF001
    attributes["messaging.operation.type"] = "process"
    if batch is argument:
        attributes["messaging.batch.message_count"] = len(batch)
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


def traced(
    handler: Callable[[Any], Any], *, tracer_provider: TracerProvider | None = None
) -> Callable[[Any], Any]:
    """Return a handler, for ``run`` or ``run_batches``, that runs in a span: see ``processing``."""
    if is_async(handler):

        @functools.wraps(handler)
        async def handle(argument: Any) -> Any:
            with processing(argument, tracer_provider=tracer_provider):
                return await handler(argument)

        return handle

    @functools.wraps(handler)
    def handle_now(argument: Any) -> Any:
        with processing(argument, tracer_provider=tracer_provider):
            return handler(argument)

    return handle_now


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
