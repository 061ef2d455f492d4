"""The bridge out: a consumer group whose handler is a broker.

::

    await AsyncRelay(dsn, to="amqp://localhost", group="relay", topics=["orders.*"]).run()

A relay is a service that runs by itself, so there is no synchronous twin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from .._async.compat import on_signals
from .._async.consumer import AsyncConsumer
from .._core.complaints import Complaints
from .._core.leases import Ack, Reject, Retry
from .._core.pacing import backoff
from ..cloudevents import to_event
from ..errors import AlreadySettled, BrokerUnavailable, LeaseLost
from ..messages import ReadMessage
from ..topics import check_topics
from .broker import Later, Parcel, Refused, Sent, Unsure, broker_class, unless_set
from .routes import Routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Unpack

    from .._async.message import AsyncMessage
    from ..options import ConsumerSettings
    from .broker import Broker, Outcome

__all__ = ["AsyncRelay"]

log = logging.getLogger("durable_notify")

#: How long a relay that is told to stop waits for what it has sent to be confirmed, in seconds.
GRACE = 5.0
#: How many batches are under way at once: while one is confirmed, the next is sent.
WORKERS = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Consumer(AsyncConsumer):
    # Trap: decoded and encoded again, a number of 20 digits is another one.
    _loads = staticmethod(str)


class AsyncRelay:
    """Relays topics to a broker, as a member of a consumer group.

    A message is settled once the broker has confirmed it. While the broker is down, the relay holds
    what it has claimed and tries again, later each time, 30 seconds at most; no attempt is counted.
    What the broker will never take becomes a dead letter with the broker's words as its reason.
    What it does not take now, a queue being full, comes again as the group backs off. Messages of
    one key arrive in their order: the next is sent when the one before is confirmed.

    Args:
        dsn: a libpq connection string or URI.
        to: the broker's URL: ``amqp://``, ``kafka://``, ``nats://`` or ``redis://``.
        group: the consumer group.
        topics: the topics relayed, or patterns.
        routes: by topic or pattern, what to fill in for each of the broker's fields, such as
            ``{"orders.*": {"exchange": "orders", "routing_key": "{topic}.{key}"}}``; see
            ``Routes``.
        cloudevents: send each message as a CloudEvent in the JSON format.
        batch: the most messages under way in one batch.
        listen_dsn: a direct connection for listening, where ``dsn`` leads through a pooler.
        options: those of ``ConsumerOptions``.

    Raises:
        InvalidArgument: the URL, the mapping or an option cannot work.
    """

    def __init__(
        self,
        dsn: str,
        *,
        to: str,
        group: str,
        topics: Iterable[str],
        routes: Mapping[str, Mapping[str, str]] | None = None,
        cloudevents: bool = False,
        batch: int = 500,
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        names = check_topics(topics)
        self._broker: Broker = broker_class(to, "Relay")(to)
        self._routes = Routes(self._broker.fields, routes or {}, names, self._broker.check)
        # No more than is under way: what waits behind a key in flight is parked, at a cost.
        options.setdefault("prefetch", WORKERS * batch)
        self._consumer = _Consumer(dsn, group=group, topics=names, listen_dsn=listen_dsn, **options)
        self._consumer._check_batches(batch, 0, WORKERS)  # noqa: SLF001 - ours
        self._batch = batch
        self._cloudevents = cloudevents
        self._stopping = asyncio.Event()
        self._complaints = Complaints()
        self.sent = 0
        self.refused = 0

    async def run(self) -> None:
        """Relay until stopped: by ``stop()``, SIGTERM or SIGINT.

        On stopping, what was sent may be confirmed for 5 seconds; the rest is given back.

        Raises:
            BrokerUnavailable: the broker cannot be reached at the start. Nothing was claimed; once
                started, a relay outlasts outages.
            InvalidArgument: the URL or the mapping cannot work, says the broker.
            psycopg.Error, SchemaError: as with a consumer.
        """
        workers: list[asyncio.Task[None]] = []
        try:
            with on_signals(self.stop):
                await unless_set(self._stopping, self._broker.connect(self._routes))
                if self._stopping.is_set():
                    return
                await self._consumer.start()
                workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
            try:
                results = await asyncio.gather(*workers, return_exceptions=True)
            finally:
                try:
                    await self._consumer.close()
                finally:
                    await self._broker.close()
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns once what is under way is confirmed or given back."""
        self._stopping.set()
        self._consumer.stop()

    async def _work(self) -> None:
        async for batch in self._consumer.batches(size=self._batch):
            await self._relay(batch)

    async def _relay(self, batch: list[AsyncMessage]) -> None:
        """See a batch through: until each message is settled, or the relay is to stop."""
        left = []
        for message in batch:
            try:
                left.append((message, self._pack(message)))
            except ValueError as error:
                self._settle(message, Refused(f"it cannot be sent: {error}"))
        failures = 0
        while left:
            outcomes = await self._send([parcel for _, parcel in left])
            if outcomes is None:
                return
            trouble = None
            for (message, _), outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, Unsure):
                    trouble = trouble or outcome
                elif not message.is_settled:  # with one before it of its key
                    self._settle(message, outcome)
            if trouble is None:
                return
            moved = any(isinstance(outcome, Sent) for outcome in outcomes)
            failures = 1 if moved else failures + 1
            if not await self._pause(failures, trouble):
                return
            held = set(await self._consumer.still_held(message for message, _ in left))
            left = [(message, parcel) for message, parcel in left if message in held]

    async def _send(self, parcels: list[Parcel]) -> list[Outcome] | None:
        """Send parcels; None where the relay was to stop meanwhile, and it took too long."""
        try:
            return await unless_set(self._stopping, self._broker.send(parcels), GRACE)
        except BrokerUnavailable as error:
            return [Unsure(str(error))] * len(parcels)

    async def _pause(self, failures: int, trouble: Unsure) -> bool:
        """Wait before the next try; returns whether there is to be one."""
        delay = backoff(failures, 0.1, 30.0)
        error = BrokerUnavailable(trouble.words)
        level = self._complaints.level("relaying", error, time.monotonic())
        log.log(level, "relaying waits, next try in %.1f s: %s", delay, trouble.words)
        try:
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        except TimeoutError:
            return not self._stopping.is_set()
        return False

    def _settle(self, message: AsyncMessage, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Sent):
                self._consumer.settle_soon(message, Ack())
                self.sent += 1
            elif isinstance(outcome, Refused):
                log.warning("message %s is a dead letter now: %s", message.id, outcome.words)
                self._consumer.settle_soon(message, Reject(outcome.words[:2000]))
                self.refused += 1
            elif isinstance(outcome, Later):
                log.info("message %s comes again: %s", message.id, outcome.words)
                failure = {"type": "", "message": outcome.words[:2000]}
                self._consumer.settle_soon(message, Retry(error=failure))
        except (AlreadySettled, LeaseLost) as error:
            log.warning("message %s was sent, and comes again: %s", message.id, error)

    def _pack(self, message: AsyncMessage) -> Parcel:
        """Turn a message into what is sent. Raises ValueError where it has no such form."""
        headers = dict(message.headers)
        if self._cloudevents:
            body = _event(message)
            kind = "application/cloudevents+json"
            headers.pop("content-type", None)
            headers = {k: v for k, v in headers.items() if not k.startswith("ce_")}
        else:
            is_data = isinstance(message.payload, bytes)
            body = message.payload if is_data else message.payload.encode()
            plain = "application/octet-stream" if is_data else "application/json"
            kind = str(headers.pop("content-type", plain))
        published = message.published_at.astimezone(UTC)
        micros = (published - _EPOCH) // timedelta(microseconds=1)
        return Parcel(
            id=f"{message.id}-{micros}",
            topic=message.topic,
            key=message.key,
            body=body,
            content_type=kind,
            headers={
                name: value if isinstance(value, str) else json.dumps(value)
                for name, value in headers.items()
            },
            published_at=published,
            to=self._routes.of(message.topic, message.key, message.id),
            lane=message._place,  # noqa: SLF001 - what its group keeps in order
        )


def _event(message: AsyncMessage) -> bytes:
    payload = message.payload
    event = to_event(
        ReadMessage(
            message.id, message.topic, message.key,
            json.loads(payload) if isinstance(payload, str) else payload,
            message.headers, message.published_at, str,
        )
    )  # fmt: skip
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
