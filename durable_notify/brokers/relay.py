"""Relay: send the messages of a consumer group to a broker.

    await AsyncRelay(dsn, broker_url="amqp://localhost", group="relay", topics=["orders.*"]).run()

A relay is a service that runs by itself, so there is no synchronous twin.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import time
import traceback
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .._async.admin.admin import AsyncAdmin
from .._async.concurrency import on_signals
from .._async.consumer.consumer import AsyncConsumer
from .._async.database.connection import connect
from .._core.checks import check_count
from .._core.leases import Ack, Reject, Retry
from .._core.log_throttle import LogThrottle
from .._core.pacing import backoff
from ..deprecated import INTERVALS, old_spelling
from ..errors import AlreadySettled, BrokerUnavailable, InvalidArgument, LeaseLost
from ..groups import as_group
from ..models import ReadMessage
from ..payloads import Decode, Decoder, JsonText, members
from ..topics import check_topics
from .broker import (
    BrokerMessage,
    Gone,
    Rejected,
    RetryLater,
    Sent,
    Unconfirmed,
    broker_class,
    kind_of,
    unless_set,
)
from .cloudevents import to_event
from .reports import BatchReport
from .routes import Routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TypeAlias, Unpack

    from .._async.consumer.message import AsyncMessage
    from ..groups import Group, RetryPolicy
    from ..options import ConsumerSettings
    from ..topics import TopicName
    from .broker import Broker, Outcome, Report
    from .webhooks import WebhookOptions

    _Left: TypeAlias = list[tuple[AsyncMessage, BrokerMessage]]

__all__ = ["AsyncRelay"]

log = logging.getLogger("durable_notify")

#: How long a stopped relay waits until what it has sent is confirmed, in seconds.
GRACE = 5.0
#: How many batches are in flight at once: while one is being confirmed, the next is sent.
WORKERS = 2
#: After how many seconds a waiting batch lets later ones pass, and how many may wait like that.
ASIDE = 1.0
MAX_ASIDE = 8
#: How often a message fails while others pass before its group's backoff applies.
PASSED = 10
#: After how many failures in a row, one by one, the other messages are not tried.
ENOUGH = 5
_ACK = Ack()
#: How long a broker may be silent before a warning, in seconds.
SILENCE = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Text(Decoder):
    """Keeps the text of payloads and headers; only headers that are strings are decoded.

    Trap: decoding and encoding would change a number of 20 digits.
    """

    def of(self, topic: str) -> Decode:
        del topic
        return lambda text, data: data if text is None else text

    def headers(self, text: str) -> dict[str, Any]:
        found = members(text)
        return {name: json.loads(v) if v[0] == '"' else v for name, v in found.items()}


class RelayConsumer(AsyncConsumer):
    """A consumer whose payloads stay as they are."""

    _decoder_class = _Text

    def ack_soon(self, messages: Iterable[AsyncMessage]) -> None:
        """Acknowledge messages, as ``settle_soon`` does each: it costs a third for many."""
        manager, buffer, urgent = self._lease_manager, self._buffer, False
        manager.check_open()
        for message in messages:
            lease, message_id = message._lease, message.id  # noqa: SLF001 - ours
            try:
                lease.record(message_id, _ACK)
            except (AlreadySettled, LeaseLost) as error:
                _log_unsettled(message, error)
            urgent = urgent or not lease.open or buffer.blocks(lease.ordering_keys[message_id])
        manager.flush_soon(urgent=urgent)


class AsyncRelay:
    """Relays topics to a broker, as a member of a consumer group.

    A message is settled once the broker has confirmed it. While the broker is down, or returns an
    unknown error, the relay keeps its messages and retries, with delays up to 30 seconds; this
    counts no attempt. A message that the broker will never accept becomes a dead letter, with the
    broker's text as its reason. If the broker does not accept it now, because a queue is full, or
    refuses it for long while it accepts others, the group's backoff applies. Messages of one key
    arrive in order: the next is sent when the one before is confirmed.

    Args:
        dsn: a libpq connection string or URI.
        broker_url: the broker's URL: ``amqp://``, ``kafka://``, ``nats://``, ``redis://`` or
            ``https://``.
        group: the consumer group: its name, or a ``Group`` with options.
        topics: the topics to relay, or patterns.
        routes: by topic or pattern, the values of the broker's fields, such as
            ``{"orders.*": {"exchange": "orders", "routing_key": "{topic}.{key}"}}``; see
            ``Routes``.
        cloudevents: send each message as a CloudEvent in the JSON format.
        webhook: for ``https://``: where the secrets are, which networks are allowed, and limits.
        listen_dsn: a direct connection for listening, if ``dsn`` leads through a pooler.
        options: those of ``ConsumerOptions``; two batches of ``batch_size`` are in flight.

    Raises:
        InvalidArgument: the URL, the mapping or an option cannot work.
    """

    _consumer_class: type[RelayConsumer] = RelayConsumer

    @old_spelling({"to": "broker_url", "batch": "batch_size", **INTERVALS}, of_group=True)
    def __init__(
        self,
        dsn: str,
        *,
        broker_url: str,
        group: str | Group,
        topics: Iterable[TopicName],
        routes: Mapping[str, Mapping[str, str]] | None = None,
        cloudevents: bool = False,
        webhook: WebhookOptions | None = None,
        listen_dsn: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        names = check_topics(topics)
        self._broker: Broker = self._make_broker(broker_url, webhook)
        self._routes = Routes(self._broker.fields, routes or {}, names, self._broker.check)
        size = options.setdefault("batch_size", getattr(self._broker, "batch_size", 500))
        check_count("batch_size", size)
        # No more than is in flight: messages that wait for a key in flight are parked, at a cost.
        options.setdefault("prefetch", WORKERS * size)
        self._make = functools.partial(
            self._consumer_class, dsn, topics=names, listen_dsn=listen_dsn, **options
        )
        self._dsn, self._group = dsn, as_group(group)
        self._consumer = self._make(group=self._group)
        self._consumer._check_batches(size, 0, WORKERS)  # noqa: SLF001 - ours
        self._batch_size = size
        self._cloudevents = cloudevents
        self._stopping = asyncio.Event()
        self._throttle = LogThrottle()
        self._under_way: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.sent = 0
        self.rejected = 0

    def _make_broker(self, url: str, webhook: WebhookOptions | None) -> Broker:
        kind = broker_class(url, "Relay")
        if webhook is None:
            return kind(url)  # type: ignore[no-any-return]
        if not url.lower().startswith(("https:", "http:")):
            raise InvalidArgument("webhook is for a relay to https:// only")
        return kind(url, webhook)  # type: ignore[no-any-return]

    async def run(self) -> None:
        """Relay until ``stop()``, SIGTERM or SIGINT.

        It then waits up to 5 seconds for confirmations, and releases the rest.

        Raises:
            BrokerUnavailable: the broker cannot be reached at the start. Nothing was claimed. Once
                started, a relay outlasts outages.
            InvalidArgument: the broker says that the URL or the mapping cannot work.
            psycopg.Error, SchemaError: as with a consumer.
        """
        with on_signals(self.stop):
            await self._run()

    async def _prepare(self) -> None:
        """Check that the broker can be reached, before anything is claimed."""
        await unless_set(self._stopping, self._broker.connect(self._routes))
        if not self._stopping.is_set():
            await self._retry_of_new_group()

    async def _run(self) -> None:
        workers: list[asyncio.Task[None]] = []
        try:
            await self._prepare()
            if not self._stopping.is_set():
                await self._consumer.start()
                workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
                await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stop()
            try:
                results = await asyncio.gather(*workers, return_exceptions=True)
                while self._under_way:
                    await asyncio.wait(self._under_way)
            finally:
                try:
                    await self._consumer.close()
                finally:
                    await self._broker.close()
        for result in (self._failure, *results):
            if isinstance(result, BaseException):
                raise result

    async def _retry_of_new_group(self) -> None:
        """Give a new group the retry policy of its broker, unless one is given."""
        policy: RetryPolicy | None = getattr(self._broker, "new_group_retry", None)
        if policy is None or self._group.retry is not None:
            return
        async with await connect(self._dsn, "relay") as connection:
            groups = await AsyncAdmin().groups(connection)
        if all(one.name != self._group.name for one in groups):
            self._consumer = self._make(group=dataclasses.replace(self._group, retry=policy))

    def stop(self) -> None:
        """Claim nothing more; ``run`` returns once all messages are confirmed or released."""
        self._stopping.set()
        self._consumer.stop()

    async def _work(self) -> None:
        async for batch in self._consumer.batches(size=self._batch_size):
            task = asyncio.create_task(self._relay(batch))
            self._under_way.add(task)
            task.add_done_callback(self._over)
            # A waiting batch does not block the others, as long as only a few wait.
            await asyncio.wait([task], timeout=ASIDE)
            while len(self._under_way) > MAX_ASIDE:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self.stop()

    async def _relay(self, batch: list[AsyncMessage]) -> None:
        """Send a batch until each message is settled, or the relay stops."""
        left: _Left = []
        for message in batch:
            try:
                left.append((message, self._pack(message)))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is this one
                self._settle(message, Rejected(f"it cannot be sent: {kind_of(error)}"))
        failures = 0
        passed_over: dict[int, int] = {}
        while left:
            before = self.sent
            outcomes = await self._send(left, alone=failures > 1)
            if outcomes is None:
                return
            trouble = None
            for (message, _), outcome in zip(left, outcomes, strict=True):
                if not isinstance(outcome, Unconfirmed) or message.is_settled:
                    continue
                trouble = trouble or outcome
                passed_over[message.id] = passed_over.get(message.id, 0) + (self.sent > before)
                if passed_over[message.id] >= PASSED:
                    self._settle(message, RetryLater(outcome.reason))
            if trouble is None:
                return
            moved = any(isinstance(outcome, Sent) for outcome in outcomes)
            failures = 1 if moved else failures + 1
            if not await self._pause(failures, trouble):
                return
            held = set(await self._consumer.filter_held(message for message, _ in left))
            left = [(message, outgoing) for message, outgoing in left if message in held]

    async def _give_up(self, gone: Gone) -> None:
        """Pause the group, and end; what was not sent is released. Once, though batches are two."""
        if self._stopping.is_set():
            return
        self.stop()
        async with await connect(self._dsn, f"relay: {gone.reason}") as connection:
            await AsyncAdmin().pause(connection, self._group.name)
        name = self._group.name
        raise BrokerUnavailable(
            f"{gone.reason}: it wants no more messages. Group {name} is paused. If it wants them "
            f"again: durable-notify group resume {name}"
        )

    async def _send(self, left: _Left, *, alone: bool) -> list[Outcome] | None:
        """Send messages; None if the relay stopped meanwhile and the broker took too long.

        What is confirmed is settled soon, independently of the others.

        `alone`: one after the other, because one of them may break the connection for all.
        """
        report = BatchReport(left, self._settle, self._ack)
        messages = [outgoing for _, outgoing in left]
        sending = self._one_by_one(messages, report) if alone else self._tried(messages, report)
        waiting = asyncio.create_task(self._say_it_waits(len(messages)))
        try:
            outcomes = await unless_set(self._stopping, sending, GRACE)
        finally:
            waiting.cancel()
            report.settle()
        gone = next((one for one in outcomes or () if isinstance(one, Gone)), None)
        if gone is not None:
            await self._give_up(gone)
            return None
        return outcomes

    async def _tried(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        try:
            return await self._broker.send(messages, report)
        except (BrokerUnavailable, InvalidArgument) as error:  # the broker may refuse the user now
            return [Unconfirmed(str(error))] * len(messages)
        except Exception as error:  # noqa: BLE001
            # An unknown error does not count as final.
            # Trap: do not log a traceback with the error's text, which may quote the message.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.debug("unexpected %s of a broker's client:\n%s", kind_of(error), where)
            words = f"unexpected {kind_of(error)} of the broker's client"
            return [Unconfirmed(words)] * len(messages)

    async def _one_by_one(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        outcomes: list[Outcome] = []
        held: dict[object, Outcome] = {}
        in_a_row = 0
        for index, message in enumerate(messages):
            if in_a_row >= ENOUGH:  # the messages are not the cause: none can be sent
                outcomes.append(outcomes[-1])
                continue
            if message.ordering_key is not None and message.ordering_key in held:
                outcomes.append(held[message.ordering_key])
                continue
            outcomes += await self._tried([message], functools.partial(_report_at, report, index))
            if isinstance(outcomes[-1], Sent):
                in_a_row = 0
            elif isinstance(outcomes[-1], (Unconfirmed, RetryLater)):
                in_a_row += isinstance(outcomes[-1], Unconfirmed)
                held[message.ordering_key] = outcomes[-1]
        return outcomes

    async def _say_it_waits(self, many: int) -> None:
        """Log that a broker does not answer, because its client may retry silently for long."""
        await asyncio.sleep(SILENCE)
        error = BrokerUnavailable("no answer")
        while True:
            level = self._throttle.level("relaying, without an answer", error, time.monotonic())
            words = "relaying waits: of %d messages the broker has not confirmed all for %g s"
            log.log(level, words, many, SILENCE)
            await asyncio.sleep(self._throttle.EVERY)

    async def _pause(self, failures: int, trouble: Unconfirmed) -> bool:
        """Wait before the next attempt; return whether to make one."""
        delay = backoff(failures, 0.1, 30.0)
        error = BrokerUnavailable(trouble.reason)
        level = self._throttle.level("relaying", error, time.monotonic())
        log.log(level, "relaying waits, next try in %.1f s: %s", delay, trouble.reason)
        try:
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        except TimeoutError:
            return not self._stopping.is_set()
        return False

    def _settle(self, message: AsyncMessage, outcome: Outcome) -> None:
        try:
            if isinstance(outcome, Rejected):
                log.warning("message %s is now a dead letter: %s", message.id, outcome.reason)
                self._consumer.settle_soon(message, Reject(outcome.reason[:2000]))
                self.rejected += 1
            elif isinstance(outcome, RetryLater):
                log.info("message %s will be redelivered: %s", message.id, outcome.reason)
                failure = {"type": "", "message": outcome.reason[:2000]}
                self._consumer.settle_soon(message, Retry(error=failure))
        except (AlreadySettled, LeaseLost) as error:
            _log_unsettled(message, error)

    def _ack(self, messages: list[AsyncMessage]) -> None:
        self.sent += len(messages)
        self._consumer.ack_soon(messages)

    def _pack(self, message: AsyncMessage) -> BrokerMessage:
        """Return a message in the form to send. Raises ValueError if it has no such form."""
        payload = message.payload
        is_data = isinstance(payload, bytes)
        kind = "application/octet-stream" if is_data else "application/json"
        headers: dict[str, str] = {}
        if message.headers:
            headers = {name: str(value) for name, value in message.headers.items()}
            kind = headers.pop("content-type", kind)
        if self._cloudevents:
            body, kind = _event(message), "application/cloudevents+json"
            headers = {k: v for k, v in headers.items() if not k.startswith("ce_")}
        else:
            body = payload if is_data else payload.encode()
        micros = (message.published_at - _EPOCH) // _MICROSECOND
        return BrokerMessage(  # without keywords, which take as long again
            f"{message.id}-{micros}",
            message.topic,
            message.key,
            body,
            kind,
            headers,
            message.published_at,
            self._routes.of(message.topic, message.key, message.id),
            message._ordering_key,  # noqa: SLF001 - what its group keeps in order
        )


def _log_unsettled(message: AsyncMessage, error: Exception) -> None:
    log.warning("message %s was sent, and will be redelivered: %s", message.id, error)


def _report_at(report: Report, index: int, _: int, outcome: Outcome) -> None:
    report(index, outcome)


def _event(message: AsyncMessage) -> bytes:
    """Return a message as a CloudEvent; its JSON unchanged, with every digit, at any depth."""
    is_data = isinstance(message.payload, bytes)
    headers = {
        name: json.loads(value) if isinstance(value, JsonText) else value
        for name, value in message.headers.items()
        if name == "content-type" or name.startswith("ce_")
    }
    event = to_event(
        ReadMessage(
            message.id, message.topic, message.key, message.payload if is_data else None,
            headers, message.published_at, str,
        )
    )  # fmt: skip
    event.pop("data", None)  # it would be a header's
    if is_data or message.payload == "null":
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    event.pop("data_base64", None)
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f'{text[:-1]},"data":{message.payload}}}'.encode()
