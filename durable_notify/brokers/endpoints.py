"""Relays to all endpoints of webhooks that stand in the database.

await AsyncWebhookRelays(dsn).run()
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from .. import schema
from .._async.concurrency import on_signals
from .._async.database.connection import HEARTBEAT, TRANSIENT, connect
from .._async.wakeups.listener import listen
from .._async.webhooks import AsyncWebhooks
from .._core.checks import check_count
from .._core.pacing import backoff
from .._core.topic_set import TopicSet
from ..dsn import plain, safe_message
from ..endpoints import KEY
from ..errors import DurableNotifyError, InvalidArgument, UnknownGroup
from .broker import Gone, RetryLater
from .filters import Filter
from .relay import AsyncRelay, RelayConsumer
from .shared import SharedConnections, SharedQueries
from .signing import DerivedSecrets, Keys, PlacedSecrets
from .webhooks import Relay, WebhookOptions, try_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._async.consumer.message import AsyncMessage
    from .._async.database.callers import Publishable
    from .._async.database.queries import AsyncQueries
    from ..endpoints import WebhookEndpoint
    from .broker import Broker, BrokerMessage, Outcome, Unconfirmed
    from .signing import Secrets

__all__ = ["AsyncWebhookRelays", "send_test_to"]

log = logging.getLogger("durable_notify")

#: The topic on whose channel changes of endpoints are told; no message is published to it.
CHANGES = TopicSet(("durable_notify.webhooks",)).channels
#: How often to look at all endpoints without being told, in seconds.
LOOK = 60.0
#: How long to wait for more changes after one, in seconds.
COLLECT = 0.1
#: How often an endpoint polls without a wake-up, in seconds.
POLL = 120.0
#: How long the messages of a killed relay are held, in seconds.
LEASE = 30.0
#: How often to record again that an endpoint fails, in seconds.
AGAIN = 300.0


class AsyncWebhookRelays:
    """Sends to all endpoints of webhooks that are not paused, and applies changes at once.

    Each endpoint is relayed by its own group. All of them share a few connections to the database,
    and the one that listens. Several processes may serve the same endpoints.

    Args:
        dsn: a libpq connection string or URI.
        key: where the key is from which secrets are derived: ``env:NAME`` or ``file:PATH``.
        allow: networks that may be reached although they are not public.
        proxy: the URL of a proxy that all requests take.
        connections: how many may claim at once; half as many settle.
        listen_dsn: a direct connection for listening, if ``dsn`` leads through a pooler.

    Raises:
        InvalidArgument: an option cannot work.
    """

    def __init__(
        self,
        dsn: str,
        *,
        key: str = KEY,
        allow: Sequence[str] = (),
        proxy: str | None = None,
        connections: int = 4,
        listen_dsn: str | None = None,
    ) -> None:
        check_count("connections", connections, 100)
        self._dsn = plain(dsn)
        self._listen_dsn = listen_dsn or self._dsn
        self.keys = Keys(key)
        self.about: dict[str, Any] = {"allow": tuple(allow), "proxy": proxy}
        WebhookOptions(**self.about)
        self.shared = SharedConnections(self._dsn, "webhooks", connections, HEARTBEAT, LEASE)
        self._webhooks = AsyncWebhooks()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._relays: dict[str, _Running] = {}
        self._failures: dict[str, tuple[int, float]] = {}  # how often in a row, and when again
        self.sent = 0
        self.rejected = 0

    def stop(self) -> None:
        """Send nothing more; ``run`` returns once all messages are confirmed or released."""
        self._stopping.set()
        self._changed.set()

    @property
    def serving(self) -> list[str]:
        """The endpoints that it sends to now."""
        return sorted(self._relays)

    async def run(self) -> None:
        """Serve until ``stop()``, SIGTERM or SIGINT.

        Raises:
            SchemaError, psycopg.Error: the database cannot be used. Once started, it outlasts
                outages.
        """
        with on_signals(self.stop):
            async with await connect(self._dsn, "webhooks") as connection:
                await schema.check_async(connection)
            subscription = await listen(self._listen_dsn, CHANGES)
            hearing = asyncio.create_task(self._hear(subscription))
            checking = asyncio.create_task(self._check())
            try:
                await self._serve()
            finally:
                for running in self._relays.values():
                    running.relay.stop()
                tasks = [running.task for running in self._relays.values()]
                await asyncio.gather(*tasks, return_exceptions=True)
                for task in (hearing, checking):
                    task.cancel()
                await asyncio.gather(hearing, checking, return_exceptions=True)
                await subscription.close()
                await self.shared.close()

    async def _hear(self, subscription: Any) -> None:
        while True:
            await subscription.woken.wait(LOOK)
            subscription.take_notifications()
            self._changed.set()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await self.shared.check()

    async def _serve(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._changed.clear()
            pause = LOOK
            try:
                pause = await self._look()
                failures = 0
            except TRANSIENT as error:
                failures += 1
                pause = backoff(failures, 0.1, 10.0)
                log.warning("endpoints cannot be read: %s", safe_message(error))
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
                    await asyncio.sleep(COLLECT)
            except TimeoutError:
                pass

    async def _look(self) -> float:
        """Start and stop relays, as the endpoints are now; return when to look again."""
        async with self.shared.keeping.use() as connection:
            endpoints = await self._webhooks.endpoints(connection)
        wanted = {each.name: each for each in endpoints if each.paused_at is None}
        for name, running in self._relays.items():
            if name not in wanted or running.version != _version(wanted[name]):
                running.relay.stop()  # once it has ended, it is looked at again
        self._failures = {name: it for name, it in self._failures.items() if name in wanted}
        now, again = time.monotonic(), LOOK
        for name, endpoint in wanted.items():
            _, due = self._failures.get(name, (0, now))
            if name not in self._relays and due <= now:
                self._start(endpoint)
            elif due > now:
                again = min(again, due - now)
        return again

    def _start(self, endpoint: WebhookEndpoint) -> None:
        try:
            relay = EndpointRelay(self, endpoint)
        except InvalidArgument as error:
            self._failed(endpoint.name, error)
            self.note(endpoint.name, str(error))
            return
        task = asyncio.create_task(relay._run(), name=f"durable_notify webhook {endpoint.name}")  # noqa: SLF001 - ours
        self._relays[endpoint.name] = _Running(relay, task, _version(endpoint))
        task.add_done_callback(lambda _: self._ended(endpoint.name))

    def _ended(self, name: str) -> None:
        running = self._relays.pop(name)
        self.sent += running.relay.sent
        self.rejected += running.relay.rejected
        error = None if running.task.cancelled() else running.task.exception()
        if isinstance(error, UnknownGroup):
            log.info("endpoint %s was deleted or renamed", name)
        elif error is not None:
            self._failed(name, error)
        else:
            self._failures.pop(name, None)
        self._changed.set()

    def _failed(self, name: str, error: BaseException) -> None:
        failures = self._failures.get(name, (0, 0.0))[0] + 1
        delay = backoff(failures, 1.0, 60.0)
        self._failures[name] = failures, time.monotonic() + delay
        # An error of ours says nothing that is secret; that of a driver may.
        told = str(error) if isinstance(error, DurableNotifyError) else safe_message(error)
        log.warning("endpoint %s cannot be served, next try in %.1f s: %s", name, delay, told)

    def note(self, name: str, failure: str | None, *, gone: bool = False) -> asyncio.Task[None]:
        """Record how an endpoint fails, or that it works."""
        task = asyncio.create_task(self._note(name, failure, gone))
        self._noting = task  # Trap: the event loop itself would forget it
        return task

    async def _note(self, name: str, failure: str | None, gone: bool) -> None:
        try:
            async with self.shared.settling.use() as connection:
                await self._webhooks.note(connection, name, failure, gone=gone)
        except Exception as error:  # noqa: BLE001 - it is only recorded later
            log.info("how endpoint %s fails was not recorded: %s", name, safe_message(error))


class _Running:
    """A relay, its task, and the version of the endpoint that it serves."""

    def __init__(self, relay: EndpointRelay, task: asyncio.Task[None], version: object) -> None:
        self.relay, self.task, self.version = relay, task, version


def _version(endpoint: WebhookEndpoint) -> object:
    return endpoint.changed_at, endpoint.exclusive


class EndpointRelay(AsyncRelay):
    """Relays the group of one endpoint.

    Args:
        fleet: what serves it.
        endpoint: the endpoint.

    Raises:
        InvalidArgument: its URL, its secrets or an option cannot work.
    """

    def __init__(self, fleet: AsyncWebhookRelays, endpoint: WebhookEndpoint) -> None:
        self._fleet, self._endpoint = fleet, endpoint

        class Consumer(RelayConsumer):
            def _make_queries(self) -> AsyncQueries:
                return SharedQueries(
                    self._dsn, self.options, fleet.shared, exclusive=endpoint.exclusive
                )

        self._consumer_class = Consumer
        super().__init__(
            fleet._dsn, broker_url=endpoint.url, group=endpoint.name, topics=endpoint.topics,  # noqa: SLF001 - ours
            cloudevents=bool(endpoint.options.get("cloudevents")),
            webhook=_options(endpoint, fleet.about), listen_dsn=fleet._listen_dsn,  # noqa: SLF001
            maintenance=False, poll_interval=POLL, lease=LEASE,
        )  # fmt: skip
        wanted = endpoint.options.get("filter")
        self._filter = None if wanted is None else Filter(wanted)
        self._fails = endpoint.failing_since is not None
        self._note_at = 0.0

    def _make_broker(self, url: str, webhook: WebhookOptions | None) -> Broker:  # noqa: ARG002 - the endpoint has it
        return _broker(self._endpoint, webhook, self._fleet.keys)

    async def _prepare(self) -> None:
        """Begin at once: an endpoint that cannot be reached now must not keep its changes off."""

    def _pack(self, message: AsyncMessage) -> BrokerMessage:
        outgoing = super()._pack(message)
        outgoing.wanted = self._wants(message)
        return outgoing

    def _settle(self, message: AsyncMessage, outcome: Outcome) -> None:
        super()._settle(message, outcome)
        if isinstance(outcome, RetryLater):
            self._note_failure(outcome.reason)

    def _ack(self, messages: list[AsyncMessage]) -> None:
        super()._ack(messages)
        if self._fails and any(self._wants(message) for message in messages):
            self._fails, self._note_at = False, 0.0
            self._fleet.note(self._endpoint.name, None)

    def _wants(self, message: AsyncMessage) -> bool:
        """Whether a message goes to the endpoint; otherwise it is acknowledged without that."""
        return self._filter is None or self._filter.passes(message)

    async def _pause(self, failures: int, trouble: Unconfirmed) -> bool:
        self._note_failure(trouble.reason)
        return await super()._pause(failures, trouble)

    async def _give_up(self, gone: Gone) -> None:
        if not self._stopping.is_set():
            self.stop()
            log.warning("endpoint %s is paused: %s", self._endpoint.name, gone.reason)
            await self._fleet.note(self._endpoint.name, gone.reason, gone=True)

    def _note_failure(self, reason: str) -> None:
        now = time.monotonic()
        if now >= self._note_at:
            limit = self._endpoint.options.get("pause_after") or AGAIN
            self._fails, self._note_at = True, now + min(AGAIN, limit / 2)
            self._fleet.note(self._endpoint.name, reason)


async def send_test_to(
    connection: Publishable,
    name: str,
    *,
    key: str = KEY,
    allow: Sequence[str] = (),
    proxy: str | None = None,
) -> Outcome:
    """Send a message ``{"type": "durable_notify.test", ...}`` to an endpoint.

    Raises:
        BrokerUnavailable: it cannot be reached.
        InvalidArgument: its URL, its secrets or an option cannot work.
        UnknownGroup: there is no endpoint of this name.
    """
    endpoint = await AsyncWebhooks().endpoint(connection, name)
    options = _options(endpoint, {"allow": tuple(allow), "proxy": proxy})
    return await try_out(_broker(endpoint, options, Keys(key)))


def _options(endpoint: WebhookEndpoint, about: Mapping[str, Any]) -> WebhookOptions:
    names = ("headers", "header_prefix", "timeout", "concurrency")
    given = {name: endpoint.options[name] for name in names if name in endpoint.options}
    return WebhookOptions(**given, **about)


def _broker(endpoint: WebhookEndpoint, options: WebhookOptions | None, keys: Keys) -> Relay:
    """Return what sends to an endpoint, with its secrets."""
    secrets: Secrets = (
        PlacedSecrets(endpoint.secrets) if endpoint.secrets else DerivedSecrets(endpoint, keys)
    )
    return Relay(endpoint.url, options, secrets)
