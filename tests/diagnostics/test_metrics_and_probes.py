"""Events and the backlog in logs, Prometheus and OpenTelemetry; what probes are answered."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import durable_notify as dn
from durable_notify import events, schema
from durable_notify.diagnostics.probes import Probes
from durable_notify.embedded import Server
from durable_notify.integrations import otel, prometheus
from durable_notify.integrations.logs import LogEvents
from durable_notify.integrations.structlog import StructlogEvents
from tests.support.api import Api, Recorder, maybe_await, running
from tests.support.observe import send
from tests.support.wait import eventually, wait_until

Connection = psycopg.Connection[Any]


def examples() -> list[events.Event]:
    """One event of each kind."""
    made = []
    for kind in events.EVENTS.values():
        values: dict[str, Any] = {
            "group": "g",
            "topic": "t",
            "topics": ("t",),
            "error": "KeyError",
            "in_transaction": False,
        }
        given = {field.name: values.get(field.name, 1) for field in dataclasses.fields(kind)}
        made.append(kind(**given))
    return made


# Logs


def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    told = LogEvents()
    with caplog.at_level(logging.DEBUG, "durable_notify.events"):
        for event in examples():
            told(event)
    records: list[Any] = list(caplog.records)
    assert [record.event for record in records] == list(events.EVENTS)
    by_name = {record.event: record for record in records}
    dead = by_name["dead_lettered"]
    assert (dead.group, dead.topic, dead.message_id, dead.attempt) == ("g", "t", 1, 1)
    assert dead.levelno == logging.WARNING
    assert dead.getMessage() == (
        "dead_lettered group=g topic=t message_id=1 attempt=1 error=KeyError"
    )
    assert by_name["claimed"].levelno == logging.DEBUG


def test_logging_costs_nothing_if_it_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "durable_notify.events"):
        for event in examples():
            LogEvents()(event)
    assert {record.event for record in caplog.records} == {  # type: ignore[attr-defined]
        "dead_lettered", "lost_lease", "claim_failed", "disconnected", "listen_failed", "option_differs",
    }  # fmt: skip


def test_structlog() -> None:
    with structlog.testing.capture_logs() as logged:
        told = StructlogEvents()
        for event in examples():
            told(event)
    assert [entry["event"] for entry in logged] == list(events.EVENTS)
    handled = next(entry for entry in logged if entry["event"] == "handled")
    assert handled["log_level"] == "debug"
    assert (handled["group"], handled["seconds"], handled["error"]) == ("g", 1, "KeyError")


# Prometheus


def scrape(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Samples by name and labels, the group left out."""
    _, text = prometheus.page(registry)
    return {
        (
            sample.name,
            " ".join(v for k, v in sorted(sample.labels.items()) if k != "group"),
        ): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_scrape_is_bounded(dsn: str, conn: Connection) -> None:
    """The pairs that are latest have series of their own; each group has its sums."""
    for group, topics in (("g", "{t,u,v}"), ("h", "{u}")):
        conn.execute("SELECT durable_notify.subscribe(%s, %s)", [group, topics])
    send(conn, range(3), "u")
    send(conn, range(2), "t")
    sizes = []
    for most in (1, 3, 1000):
        registry = CollectorRegistry()
        registry.register(collector := prometheus.StatusCollector(dsn, max_pairs=most))
        found = [
            (sample.labels["group"], sample.labels.get("topic"), sample.value)
            for family in text_string_to_metric_families(prometheus.page(registry)[1].decode())
            for sample in family.samples
            if sample.name.endswith("unread_messages")
        ]
        sizes.append(len(found) - 2)
        assert {row for row in found if row[1] is None} == {("g", None, 5), ("h", None, 3)}
        assert sorted(row[2] for row in found if row[1]) == [0, 2, 3, 3][-most:]
        assert scrape(registry)["durable_notify_hidden_pairs", ""] == max(0, 4 - most)
        collector.close()
    assert sizes == [1, 3, 4]


async def test_what_is_counted(api: Api, dsn: str, conn: Connection) -> None:
    registry = CollectorRegistry()
    metrics = prometheus.Metrics(registry)
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(api.Publisher(on_event=metrics).publish_many(connection, "t", range(5)))

    async def handler(message: Any) -> None:
        if message.payload == 4 and message.attempt == 1:
            raise KeyError
        if message.payload == 3:
            await message.reject()

    options = {"retry": dn.RetryPolicy(base=0.01), "until_empty": True, "order_by": "none"}
    await api.consumer(dsn, on_event=metrics, **options).run(handler)
    registry.register(backlog := prometheus.StatusCollector(dsn))
    found = scrape(registry)
    name = "durable_notify_"
    assert found[f"{name}published_messages_total", "t"] == 5
    assert found[f"{name}claimed_messages_total", "t"] == 6
    assert found[f"{name}claimed_bytes_total", "t"] == 6
    assert found[f"{name}handled_messages_total", "ok t"] == 5
    assert found[f"{name}handled_messages_total", "error t"] == 1
    assert found[f"{name}handle_seconds_count", "t"] == 6
    assert found[f"{name}settled_messages_total", "ack t"] == 4
    assert found[f"{name}settled_messages_total", "retry t"] == 1
    assert found[f"{name}settled_messages_total", "reject t"] == 1
    assert found[f"{name}dead_lettered_messages_total", "t"] == 1
    assert found[f"{name}listening", ""] == 1
    assert 0 < found[f"{name}claim_seconds_sum", ""] < 60
    assert found[f"{name}up", ""] == 1
    assert found[f"{name}dead_letters", "t"] == 1
    assert found[f"{name}unread_messages", "t"] == 0
    send(conn, range(3))
    assert scrape(registry)[f"{name}unread_messages", "t"] == 3
    assert 0 < scrape(registry)[f"{name}oldest_unread_seconds", "t"] < 60
    assert 0 < scrape(registry)[f"{name}oldest_unsettled_seconds", "t"] < 60
    assert found[f"{name}retrying_messages", "t"] == found[f"{name}parked_messages", "t"] == 0
    backlog.close()


def test_every_event_is_counted() -> None:
    """But for those that another metric tells of."""
    registry = CollectorRegistry()
    metrics = prometheus.Metrics(registry)
    metrics(events.ListenVerified(group="g"))
    silent = set()
    for event in sorted(examples(), key=lambda event: event.name == "listen_verified"):
        before = scrape(registry)
        metrics(event)
        if scrape(registry) == before:
            silent.add(event.name)
    # Disconnected comes first, so that deaf finds the gauge at 0.
    assert silent == {"retried", "claim_recovered", "listen_failed"}


def test_the_database_goes_and_comes_back(
    private_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A scrape has what the process knows, and says that the database does not answer."""
    dsn = private_server.dsn()
    schema.migrate(dsn)
    registry = CollectorRegistry()
    prometheus.Metrics(registry)(events.Polled(group="g"))
    backlog = prometheus.StatusCollector(dsn)
    registry.register(backlog)
    up = ("durable_notify_up", "")
    assert scrape(registry)[up] == 1
    private_server.stop()
    for _ in range(3):
        found = scrape(registry)
        assert found[up] == 0
        assert found["durable_notify_polls_total", ""] == 1
    said = [r for r in caplog.records if r.getMessage().startswith("metrics: the database")]
    assert 1 <= len(said) <= 2, "a connection that breaks, and one that is refused"
    private_server.start()
    eventually(lambda: scrape(registry)[up] == 1)
    backlog.close()


def test_a_database_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    """It takes connections, and says nothing: each scrape is over in the time given."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        registry = CollectorRegistry()
        # Connecting alone takes 2 s an address.
        hosts = ",".join(["127.0.0.1"] * 30)
        ports = ",".join([str(port)] * 30)
        registry.register(prometheus.StatusCollector(f"host={hosts} port={ports}", timeout=0.2))
        for _ in range(2):
            began = time.monotonic()
            assert scrape(registry)["durable_notify_up", ""] == 0
            assert time.monotonic() - began < 30
        assert "no answer within 0.2 s" in caplog.text


def test_a_database_without_the_schema(empty_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    registry.register(backlog := prometheus.StatusCollector(empty_dsn))
    assert scrape(registry)["durable_notify_up", ""] == 0
    assert "This database has no durable_notify schema" in caplog.text
    backlog.close()


def test_registering_asks_nothing() -> None:
    """An application starts while its database is down."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(prometheus.StatusCollector("host=/nowhere"))
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(prometheus.StatusCollector("host=/nowhere"))


@pytest.mark.parametrize("timeout", [0, -1, 61])
def test_bad_timeouts(timeout: float) -> None:
    with pytest.raises(dn.InvalidArgument, match="timeout"):
        prometheus.StatusCollector("", timeout=timeout)


# OpenTelemetry


@pytest.fixture
def spans() -> Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider, exporter
    provider.shutdown()


def of_a_span(operation: str, message_id: int) -> dict[str, str]:
    """Attributes of every span of a message of topic t."""
    return {
        "messaging.system": "durable_notify",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": "t",
        "messaging.message.id": str(message_id),
    }


async def test_a_trace_from_publisher_to_handler(
    api: Api, dsn: str, conn: Connection, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    tracing = otel.Tracing(tracer_provider=provider)
    publisher: Any = api.Publisher(middleware=[tracing])
    async with api.connect(dsn, autocommit=True) as connection:
        one = await maybe_await(publisher.publish(connection, "t", 1, headers={"h": 1}))
        await maybe_await(publisher.publish_many(connection, "t", [2, 3]))

    async def works(message: Any) -> None:
        if message.payload == 3:
            raise KeyError(message.payload)

    once = dn.RetryPolicy(max_attempts=1)
    consumer = api.consumer(
        dsn, retry=once, until_empty=True, order_by="none", middleware=[tracing]
    )
    await consumer.run(works)

    finished = exporter.get_finished_spans()
    sent, sent_many = (span for span in finished if span.kind is SpanKind.PRODUCER)
    assert (sent.name, sent_many.name) == ("send t", "send t")
    assert dict(sent.attributes or {}) == of_a_span("send", one)
    assert (sent_many.attributes or {})["messaging.batch.message_count"] == 2
    processed = [span for span in finished if span.kind is SpanKind.CONSUMER]
    assert [span.name for span in processed] == ["process t"] * 3
    first, _, failed = sorted(processed, key=lambda s: int(s.attributes["messaging.message.id"]))  # type: ignore[index,arg-type]
    assert first.context.trace_id == sent.context.trace_id
    assert first.parent is not None
    assert first.parent.span_id == sent.context.span_id
    assert [link.context.span_id for link in first.links] == [sent.context.span_id]
    assert dict(first.attributes or {}) == of_a_span("process", one) | {
        "messaging.consumer.group.name": "g", "durable_notify.attempt": 1,
    }  # fmt: skip
    assert first.status.status_code is StatusCode.UNSET
    assert failed.parent is not None
    assert failed.parent.span_id == sent_many.context.span_id
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "KeyError"


def test_a_batch_links_to_all(
    dsn: str, conn: Connection, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    tracing = otel.Tracing(tracer_provider=provider)
    publisher = dn.Publisher(middleware=[tracing])
    for number in range(2):
        publisher.publish(conn, "t", number)
    dn.Publisher().publish(conn, "t", "without a trace")
    consumer = dn.Consumer(dsn, group="g", topics=["t"], until_empty=True, middleware=[tracing])
    consumer.run_batches(lambda _batch: None, size=3)
    *sent, processed = exporter.get_finished_spans()
    assert processed.parent is None
    assert {link.context.span_id for link in processed.links} == {s.context.span_id for s in sent}
    assert (processed.attributes or {})["messaging.batch.message_count"] == 3


def test_a_span_of_ones_own_stays_the_parent(
    dsn: str, conn: Connection, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    tracing = otel.Tracing(tracer_provider=provider)
    dn.Publisher(middleware=[tracing]).publish(conn, "t", 1)
    tracer = provider.get_tracer("test")
    with dn.Consumer(dsn, group="g", topics=["t"], until_empty=True) as consumer:
        for message in consumer:
            with tracer.start_as_current_span("mine") as mine:
                with otel.processing(message, tracer_provider=provider):
                    message.ack()
    sent, processed, _ = exporter.get_finished_spans()
    assert processed.parent is not None
    assert processed.parent.span_id == mine.get_span_context().span_id
    assert [link.context.span_id for link in processed.links] == [sent.context.span_id]


async def test_otel_metrics(api: Api, dsn: str, conn: Connection) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    measured = otel.Metrics(provider)
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(api.Publisher(on_event=measured).publish_many(connection, "t", [1, 2]))
    await api.consumer(dsn, on_event=measured, until_empty=True).run(Recorder())
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    provider.shutdown()
    (sent,) = metrics["messaging.client.sent.messages"].data.data_points
    assert (sent.value, sent.attributes["messaging.destination.name"]) == (2, "t")
    consumed = metrics["messaging.client.consumed.messages"].data.data_points
    assert sum(point.value for point in consumed) == 2
    assert consumed[0].attributes["messaging.consumer.group.name"] == "g"
    operations = {
        point.attributes["messaging.operation.type"]
        for point in metrics["messaging.client.operation.duration"].data.data_points
    }
    assert operations == {"send", "receive", "settle"}
    (process,) = metrics["messaging.process.duration"].data.data_points
    assert process.count == 2
    assert process.attributes["messaging.system"] == "durable_notify"


# Probes


def get(probes: Probes, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{probes.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Stub:
    def __init__(self, *, live: bool, ready: bool) -> None:
        self._health = dn.models.Health(
            live, ready, ("a reason",), "g", 0, hears=True, silent=0.0, state="fetching"
        )

    def health(self) -> dn.models.Health:
        return self._health


async def test_probes_of_a_consumer(api: Api, dsn: str, conn: Connection) -> None:
    consumer = api.consumer(dsn)
    with Probes(consumer, port=0, metrics=prometheus.page) as probes:
        assert get(probes, "/live")[0] == 200
        assert get(probes, "/ready")[0] == 503
        assert "it has not started" in get(probes, "/ready")[1]
        async with running(consumer, Recorder()):
            await wait_until(lambda: consumer.health().ready)
            status, body = get(probes, "/ready")
            assert status == 200
            assert json.loads(body)["consumers"] == [{"group": "g", "ready": True, "why": []}]
        assert get(probes, "/ready?full")[0] == 503
        status, text = get(probes, "/metrics")
        assert status == 200
        assert "python_info" in text
        assert get(probes, "/live", "HEAD") == (200, "")
        assert get(probes, "/elsewhere")[0] == 404
        assert get(probes, "/live", "POST")[0] == 501


def test_probes_of_several() -> None:
    well, ill = Stub(live=True, ready=True), Stub(live=False, ready=False)
    with Probes(well, ill, port=0) as probes:
        assert get(probes, "/live")[0] == 503
        assert get(probes, "/ready")[0] == 503
        assert get(probes, "/metrics") == (
            404, '{"error": "no metrics: pip install \'durable-notify[prometheus]\'"}\n',
        )  # fmt: skip
    with Probes(well, well, port=0) as probes:
        assert get(probes, "/ready")[0] == 200


def test_a_silent_client_does_not_delay_others() -> None:
    with Probes(Stub(live=True, ready=True), port=0) as probes:
        with socket.create_connection(("127.0.0.1", probes.port)):
            assert get(probes, "/live")[0] == 200


def test_metrics_that_fail_are_an_error_and_no_more() -> None:
    def fails() -> tuple[str, bytes]:
        raise RuntimeError("another library's collector")

    with Probes(Stub(live=True, ready=True), port=0, metrics=fails) as probes:
        assert get(probes, "/metrics") == (500, '{"error": "RuntimeError"}\n')
        assert get(probes, "/live")[0] == 200


def test_nothing_to_watch() -> None:
    with pytest.raises(dn.InvalidArgument, match="at least one consumer"):
        Probes(port=0)
    assert not [t for t in threading.enumerate() if t.name == "durable_notify probes"]
