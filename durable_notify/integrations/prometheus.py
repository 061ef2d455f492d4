"""Metrics for Prometheus: counters from events, and the lag of groups from the database.

Needs the extra ``prometheus``.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .. import events
from .._core.log_throttle import LogThrottle
from .._sync.database.connection import ConnectionRegistry, ReconnectingConnection
from ..dsn import check_dsn, safe_message
from ..errors import InvalidArgument
from ..middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import LiteralString

    from ..middleware import Handling

__all__ = ["Metrics", "StatusCollector", "page"]

log = logging.getLogger("durable_notify")

Rows = list[tuple[Any, ...]]

#: From a claim on an idle database to a handler that calls other services.
BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

#: The pairs of group and topic that are latest; with a NULL topic the groups, and their pairs.
_STATUS = """
    WITH found AS MATERIALIZED (
        SELECT topic, group_name, unread, oldest_unread, deferred, leases, leased, dead,
               oldest_unsettled, retrying, parked
          FROM durable_notify.status(%s) WHERE group_name IS NOT NULL),
    shown AS (
        (SELECT f.*, 1 AS pairs FROM found f
          ORDER BY f.oldest_unsettled, f.unread + f.deferred + f.leased DESC, f.dead DESC LIMIT %s)
        UNION ALL
        SELECT NULL, f.group_name, sum(f.unread), min(f.oldest_unread), sum(f.deferred),
               sum(f.leases), sum(f.leased), sum(f.dead), min(f.oldest_unsettled),
               sum(f.retrying), sum(f.parked), count(*)
          FROM found f GROUP BY f.group_name)
    SELECT s.topic, s.group_name, s.unread,
           COALESCE(GREATEST(0, EXTRACT(epoch FROM n.now - s.oldest_unread)), 0)::float8,
           s.deferred, s.leases, s.leased, s.dead,
           COALESCE(GREATEST(0, EXTRACT(epoch FROM n.now - s.oldest_unsettled)), 0)::float8,
           s.retrying, s.parked, s.pairs
      FROM shown s CROSS JOIN pg_catalog.clock_timestamp() AS n (now)"""
#: The metrics of a scrape from the database, in the order of the query's columns.
GAUGES = {
    "unread_messages": "Messages that were never delivered; estimated above 10,000.",
    "oldest_unread_seconds": "The age of the oldest of these.",
    "deferred_messages": "Messages that wait for a retry, their time or their key; at most 10,000.",
    "leases": "Batches that consumers hold.",
    "leased_messages": "Messages that consumers hold.",
    "dead_letters": "Dead letters; at most 10,000.",
    "oldest_unsettled_seconds": "How long the oldest message waits that is not settled.",
    "retrying_messages": "Messages that failed and wait for a retry; at most 10,000.",
    "parked_messages": "Messages that wait for an earlier one of their key; at most 10,000.",
}

#: More of them, each with its labels and its query: the labels' values, and the value.
UPKEEP: dict[str, tuple[str, list[str], LiteralString]] = {
    "oldest_lease_seconds": (
        "How long the consumers of a group have held the message that they hold longest.",
        ["group", "topic"],
        (
            "SELECT group_name, topic, GREATEST(0, EXTRACT(epoch FROM pg_catalog.clock_timestamp()"
            " - pg_catalog.min(claimed_at)))::float8 FROM durable_notify.leases() GROUP BY 1, 2"
        ),
    ),
    "lost_messages": (
        "Messages that a group lost to retention, as far as the records go back.",
        ["group", "topic"],
        (
            "SELECT group_name, topic, pg_catalog.sum(messages)::float8"
            " FROM durable_notify.lost_messages() GROUP BY 1, 2"
        ),
    ),
    "maintenance_seconds": (
        "How long ago a round of maintenance ended.",
        [],
        "SELECT GREATEST(0, seconds) FROM durable_notify.maintenance_status()",
    ),
    "maintenance_failed_steps": (
        "How many steps of the last round of maintenance failed.",
        [],
        "SELECT failed FROM durable_notify.maintenance_status()",
    ),
    "topic_bytes": (
        "About how much a topic takes, indexes included; sampled every five minutes.",
        ["topic"],
        "SELECT topic, bytes FROM durable_notify.topic_storage()",
    ),
}
#: How many seconds a sample of sizes is good for.
SAMPLE_AGE = 300.0


class Metrics(Middleware):
    """Counts events; give it as ``on_event`` to all consumers and publishers of the process.

    As ``middleware`` of a consumer, it also measures how many messages its handlers have.

    Args:
        registry: the registry of its metrics; a registry can have only one of these.
        buckets: of the histograms, in seconds.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, buckets: Sequence[float] = BUCKETS
    ) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"durable_notify_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"durable_notify_{name}", text, labels, registry=registry)

        def seconds(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(
                f"durable_notify_{name}_seconds", text, labels, registry=registry, buckets=buckets
            )

        by_topic = ("group", "topic")
        self._published = counter("published_messages", "Messages published.", "topic")
        self._publish = seconds("publish", "How long publishing took the database.", "topic")
        self._claimed = counter("claimed_messages", "Messages claimed.", *by_topic)
        self._bytes = counter("claimed_bytes", "The size of their payloads.", *by_topic)
        self._claim = seconds("claim", "How long claims that found something took.", "group")
        self._handled = counter("handled_messages", "Handlers' calls.", *by_topic, "result")
        self._handle = seconds("handle", "How long handlers' calls took.", *by_topic)
        self._handling = gauge("handling_messages", "Messages that handlers have now.", *by_topic)
        self._settled = counter("settled_messages", "Messages settled.", *by_topic, "outcome")
        self._settle = seconds("settle", "How long settling took the database.", "group")
        self._dead = counter("dead_lettered_messages", "Messages given up here.", *by_topic)
        self._lost = counter("lost_leases", "Leases that others have taken over.", *by_topic)
        self._notifications = counter("notifications", "Wake-ups that arrived.", "group")
        self._polls = counter("polls", "Polls without a wake-up.", "group")
        self._failures = counter("claim_failures", "Claims that failed.", "group")
        self._reconnects = counter("reconnects", "New listening connections.", "group")
        self._differs = counter("differing_options", "Options that differ.", "group")
        self._listening = gauge("listening", "1: wake-ups arrive; 0: it polls instead.", "group")
        self._count: dict[type[events.Event], Callable[[Any], None]] = {
            events.Published: self._count_published,
            events.Claimed: self._count_claimed,
            events.Handled: self._count_handled,
            events.Settled: self._count_settled,
            events.DeadLettered: lambda e: self._dead.labels(e.group, e.topic).inc(),
            events.LostLease: lambda e: self._lost.labels(e.group, e.topic).inc(),
            events.Notified: lambda e: self._notifications.labels(e.group).inc(),
            events.Polled: lambda e: self._polls.labels(e.group).inc(),
            events.ClaimFailed: lambda e: self._failures.labels(e.group).inc(),
            events.Reconnected: lambda e: self._reconnects.labels(e.group).inc(),
            events.OptionDiffers: lambda e: self._differs.labels(e.group).inc(),
            events.ListenVerified: lambda e: self._listening.labels(e.group).set(1),
            events.ListenFailed: lambda e: self._listening.labels(e.group).set(0),
            events.Disconnected: lambda e: self._listening.labels(e.group).set(0),
        }

    def __call__(self, event: events.Event) -> None:
        """Count an event."""
        count = self._count.get(type(event))
        if count is not None:
            count(event)

    def handling(self, call: Handling, /) -> Iterator[None]:
        """Count the messages that a handler has."""
        gauges = [self._handling.labels(call.group, message.topic) for message in call.messages]
        for gauge in gauges:
            gauge.inc()
        try:
            yield
        finally:
            for gauge in gauges:
                gauge.dec()

    def _count_published(self, event: events.Published) -> None:
        self._published.labels(event.topic).inc(event.messages)
        self._publish.labels(event.topic).observe(event.seconds)

    def _count_claimed(self, event: events.Claimed) -> None:
        self._claimed.labels(event.group, event.topic).inc(event.messages)
        self._bytes.labels(event.group, event.topic).inc(event.bytes)
        self._claim.labels(event.group).observe(event.seconds)

    def _count_handled(self, event: events.Handled) -> None:
        result = "ok" if event.error is None else "error"
        self._handled.labels(event.group, event.topic, result).inc()
        self._handle.labels(event.group, event.topic).observe(event.seconds)

    def _count_settled(self, event: events.Settled) -> None:
        for outcome, messages in (
            ("ack", event.acked),
            ("retry", event.retried),
            ("reject", event.rejected),
        ):
            if messages:
                self._settled.labels(event.group, event.topic, outcome).inc(messages)
        if not event.in_transaction:
            self._settle.labels(event.group).observe(event.seconds)


class StatusCollector(Collector):
    """Asks the database for the lag of every group, at each scrape: ``registry.register(it)``.

    Every group has metrics that sum up its topics. The ``max_pairs`` pairs of group and topic that
    are latest also have metrics of their own, so the size of a scrape is bounded.

    If the database does not answer within ``timeout`` seconds, a scrape has ``durable_notify_up 0``
    and the other metrics of the process, and a warning is logged once a minute. One process with a
    collector is enough; several report the same.

    Args:
        dsn: a libpq connection string or URI, of a role that may see the groups.
        timeout: how many seconds the database may take to answer.
        max_pairs: how many pairs of group and topic have metrics of their own.
    """

    def __init__(
        self, dsn: str, *, timeout: float = 5.0, max_count: int = 10_000, max_pairs: int = 1_000
    ) -> None:
        if not 0 < timeout <= 60:  # noqa: PLR2004
            raise InvalidArgument(
                f"timeout must be more than 0 and at most 60 seconds, not {timeout!r}"
            )
        check_dsn(dsn)
        self._timeout = timeout
        self._limits = (max_count, max_pairs)
        self._connection = ReconnectingConnection(
            dsn, "metrics", ConnectionRegistry(), timeout, timeout
        )
        self._mutex = threading.Lock()
        self._asked: Future[dict[str, Rows]] | None = None
        self._sampled: tuple[float, Rows] | None = None
        self._throttle = LogThrottle()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the names of its metrics, without asking the database."""
        return list(self._families(None))

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Ask the database."""
        try:
            found = self._ask().result(self._timeout)
        except Exception as error:  # noqa: BLE001 - the scrape is answered in any case
            now = time.monotonic()
            level = self._throttle.level("scraping", error, now)
            what = safe_message(error) or f"no answer within {self._timeout:g} s"
            log.log(
                level, "metrics: the database did not answer how far groups are behind: %s", what
            )
            return self._families(None)
        return self._families(found)

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()

    def _ask(self) -> Future[dict[str, Rows]]:
        """Ask in a thread; until it answers, other scrapes wait for the same answer.

        Trap: the driver's connect timeout applies to each address of a host, one after the other.
        """
        with self._mutex:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(
                    target=self._fetch,
                    args=(self._asked,),
                    name="durable_notify metrics",
                    daemon=True,
                ).start()
            return self._asked

    def _fetch(self, answer: Future[dict[str, Rows]]) -> None:
        try:
            found = {"status": self._connection.fetch(_STATUS, self._limits)}
            for name, (_, _, query) in UPKEEP.items():
                if name != "topic_bytes":
                    found[name] = self._connection.fetch(query, ())
                    continue
                now = time.monotonic()
                if self._sampled is None or now - self._sampled[0] > SAMPLE_AGE:
                    self._sampled = (now, self._connection.fetch(query, ()))
                found[name] = self._sampled[1]
            answer.set_result(found)
        except Exception as error:  # noqa: BLE001
            answer.set_exception(error)

    def _families(self, found: dict[str, Rows] | None) -> Iterable[GaugeMetricFamily]:
        up = "Whether the database has answered how far groups are behind."
        yield GaugeMetricFamily("durable_notify_up", up, value=float(found is not None))
        rows = found["status"] if found else ()
        pairs = [row for row in rows if row[0] is not None]
        groups = [row for row in rows if row[0] is None]
        for index, (name, text) in enumerate(GAUGES.items(), 2):
            family = GaugeMetricFamily(f"durable_notify_{name}", text, labels=["group", "topic"])
            for row in pairs:
                family.add_metric([row[1], row[0]], float(row[index]))
            yield family
            how = "The most of all topics." if name.endswith("_seconds") else "Over all topics."
            family = GaugeMetricFamily(f"durable_notify_group_{name}", how, labels=["group"])
            for row in groups:
                family.add_metric([row[1]], float(row[index]))
            yield family
        hidden = float(sum(row[-1] for row in groups) - len(pairs))
        text = "Pairs of group and topic without metrics of their own: the least late."
        yield GaugeMetricFamily("durable_notify_hidden_pairs", text, value=hidden)
        for name, (text, labels, _) in UPKEEP.items():
            family = GaugeMetricFamily(f"durable_notify_{name}", text, labels=labels)
            for *values, value in found[name] if found else ():
                family.add_metric(values, float(value))
            yield family


def page(registry: CollectorRegistry = REGISTRY) -> tuple[str, bytes]:
    """Return the content type and the text of a scrape."""
    return CONTENT_TYPE_LATEST, generate_latest(registry)
