"""NATS JetStream, with nats-py: the extra ``nats``.

Each message carries ``Nats-Msg-Id``, by which its stream drops duplicates within its duplicate
window. A mapping has ``subject``, by default the topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import re
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ..errors import BrokerUnavailable, InvalidArgument
from .broker import (
    SENT,
    UNCARRIED,
    Answer,
    Rejected,
    RetryLater,
    Sent,
    Unconfirmed,
    WorkingRoutes,
    by_ordering_key,
    client_of,
    error_text,
    kind_of,
    unless_set,
    url_parts,
)
from .ingest import IncomingMessage
from .nats_headers import THEIRS, read_all_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .broker import BrokerMessage, Outcome, Report
    from .routes import Routes

__all__ = ["Relay", "Source", "connect"]

#: How long to wait for an answer, in seconds.
PATIENCE = 10.0
#: After how long NATS redelivers what an ingest has not acknowledged, in seconds.
ACK_WAIT = 20.0
#: Errors that the client raises before it sends, about a header's name, the subject, or the size.
_OF_CLIENT = ("BadHeaderError", "BadSubjectError", "MaxPayloadError")
#: How long to wait for messages before a check whether any can arrive, in seconds.
IDLE = 5.0
#: The status by which a server says that no stream and no subscriber takes a message.
_NO_RESPONDERS = "503"
_NAME = re.compile(r"[!-9;-~]+")
_PLAIN = re.compile(r"(?![\" ])[ -~]*(?<! )")
_NOT_IN_SUBJECT = re.compile("[\x00-\x20\x7f*>]")
#: Error codes by which JetStream will never accept a message: it, or its headers, are too large for
#: the stream. After a code in neither list, the message waits.
FINAL = (10054, 10097)
#: The stream does not accept the message now, and may later, because it is full.
FULL = (10077,)


class Relay:
    """Sends messages to NATS."""

    fields: Mapping[str, str] = {"subject": "{topic}"}

    def __init__(self, url: str) -> None:
        self._nats, self._errors, self._js = client_of(
            "nats", "nats", "nats.errors", "nats.js.errors"
        )
        if not url_parts(url).hostname:
            raise InvalidArgument("the URL names no host: write nats://USER:PASSWORD@HOST:4222")
        self._url = url
        self._acks: _Acks | None = None
        self._connecting = asyncio.Lock()
        self._working = WorkingRoutes()

    def check(self, field: str, template: str) -> None:
        """Raise InvalidArgument unless the fixed part of a subject is valid."""
        plain = re.sub(r"\{\w+\}", "x", template)
        if (flaw := _flaw_of_subject(plain)) is not None:
            raise InvalidArgument(f"the mapping's {field} {template!r} cannot work: {flaw}")

    async def connect(self, routes: Routes) -> None:
        """Connect, and check that there are streams for the subjects."""
        stream = (await self._connected()).stream
        try:
            await stream.account_info()
            for subject in sorted(routes.fixed("subject")):
                await self._stream_of(stream, subject)
        except self._js.NotFoundError as error:
            raise InvalidArgument(
                f"NATS says: no stream accepts subject {subject!r}. Create one, or correct the "
                "mapping"
            ) from error
        except (self._js.ServiceUnavailableError, self._errors.NoRespondersError) as error:
            raise InvalidArgument("NATS has no JetStream for this account: enable it") from error
        except (self._errors.Error, TimeoutError) as error:
            raise BrokerUnavailable(f"NATS does not answer: {error_text(error)}") from error

    async def close(self) -> None:
        """Disconnect."""
        acks, self._acks = self._acks, None
        if acks is not None:
            with contextlib.suppress(Exception):
                await acks.client.close()

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages, those of an ordering key one after the other."""
        acks = await self._connected()
        expiring = asyncio.create_task(acks.expire())
        try:
            # Trap: a message in flight on a broken connection receives no answer, and times out.
            return await by_ordering_key(
                messages, functools.partial(self._begin, acks), report, acks.broken
            )
        finally:
            expiring.cancel()

    async def _connected(self) -> _Acks:
        async with self._connecting:
            if self._acks is None or not self._acks.client.is_connected:
                await self.close()
                broken = asyncio.Event()
                client = await connect(self._nats, self._url, broken)
                stream = client.jetstream(timeout=PATIENCE)
                outcome_of = functools.partial(self._outcome_of_answer, stream)
                acks = _Acks(client, stream, broken, outcome_of)
                try:
                    await acks.subscribe()
                except (self._errors.Error, OSError) as error:
                    raise BrokerUnavailable(f"NATS breaks off: {error_text(error)}") from error
                self._acks = acks
            return self._acks

    async def _begin(self, acks: _Acks, message: BrokerMessage) -> Outcome | Answer:
        subject = message.route["subject"]
        headers = _headers(message)
        flaw = (
            _flaw_of_subject(subject)
            or (message.headers and _flaw_of_names(headers))
            or _flaw_of_size(headers, len(message.body), acks.client.max_payload)
        )
        if flaw:
            return Rejected(flaw)
        try:
            return await acks.publish(subject, message.body, headers)
        except Exception as error:  # noqa: BLE001 - sorted, and raised if it is none of these
            return self._outcome_of(error, subject)

    def _outcome_of_answer(
        self, stream: Any, subject: str, answer: Any
    ) -> Outcome | Awaitable[Outcome]:
        """Return the outcome by a stream's answer; None: there was none in time."""
        if answer is None or (answer.headers or {}).get("Status") == _NO_RESPONDERS:
            return self._no_stream(stream, subject)
        try:
            said = json.loads(answer.data.decode())
            if "error" in said:
                raise self._js.APIError.from_error(said["error"])
            _ = said["stream"], said["seq"]
        except (self._js.APIError, *UNCARRIED) as error:
            return self._outcome_of(error, subject)
        self._working.note(subject)
        return SENT

    def _outcome_of(self, error: Exception, subject: str) -> Outcome:
        outcome: Outcome = Unconfirmed(f"NATS did not confirm: {error_text(error)}")
        if isinstance(error, self._js.APIError):
            words = f"NATS says: {error.description} ({error.err_code})"
            if error.err_code in FINAL:
                outcome = Rejected(words)
            else:
                outcome = RetryLater(words) if error.err_code in FULL else Unconfirmed(words)
        elif type(error).__name__ in _OF_CLIENT:
            outcome = Rejected(f"NATS cannot carry it, says its client: {error_text(error)}")
        elif isinstance(error, UNCARRIED):
            # The answer is not a stream's. The subscriber may have processed the message.
            outcome = Rejected(
                f"what answers on subject {subject!r} is not a stream: {kind_of(error)}"
            )
        elif not isinstance(error, (self._errors.Error, OSError)):
            raise error
        return outcome

    async def _no_stream(self, stream: Any, subject: str) -> Outcome:
        """Return the outcome without an answer: there is no stream, or it has no leader now."""
        try:
            await self._stream_of(stream, subject)
        except self._js.NotFoundError:
            words = f"NATS says: no response from stream; no stream accepts subject {subject!r}"
            return self._working.outcome(subject, words)
        except (self._errors.Error, TimeoutError, OSError) as error:
            return Unconfirmed(f"NATS did not confirm: {error_text(error)}")
        return Unconfirmed(f"NATS did not confirm: the stream of {subject!r} does not answer")

    @staticmethod
    async def _stream_of(stream: Any, subject: str) -> None:
        await stream.find_stream_name_by_subject(subject)


class _Acks:
    """A connection, and the answers of streams to what is published through it.

    The client has an own function for that, which starts a task and a timer for each message.
    """

    def __init__(
        self,
        client: Any,
        stream: Any,
        broken: asyncio.Event,
        outcome_of: Callable[[str, Any], Outcome | Awaitable[Outcome]],
    ) -> None:
        self.client, self.stream, self.broken = client, stream, broken
        self._outcome_of = outcome_of
        self._loop = asyncio.get_running_loop()
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        #: By the subject of the answer, in the order of publishing.
        self._waiting: dict[str, tuple[float, str, Answer]] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def subscribe(self) -> None:
        await self.client.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Publish a message; return a future of its outcome. Raises what the client raises."""
        reply = f"{self._inbox}.{next(self._numbers)}"
        future = Answer()
        self._waiting[reply] = self._loop.time(), subject, future
        try:
            await self.client.publish(subject, body, reply, headers)
        except BaseException:
            del self._waiting[reply]
            raise
        return future

    async def expire(self) -> None:
        """Give up what has had no answer for ``PATIENCE``."""
        while True:
            await asyncio.sleep(PATIENCE / 10)
            for reply, (since, _, _) in list(self._waiting.items()):
                if self._loop.time() - since < PATIENCE:
                    break
                self._answered(reply, None)

    async def _receive(self, answer: Any) -> None:
        self._answered(answer.subject, answer)

    def _answered(self, reply: str, answer: Any) -> None:
        _, subject, future = self._waiting.pop(reply, (0.0, "", None))
        if future is None or future.done():
            return
        try:
            outcome = self._outcome_of(subject, answer)
        except Exception as error:  # noqa: BLE001 - for the caller, not for the client's log
            future.set_exception(error)
            return
        if not isinstance(outcome, Sent) and isinstance(outcome, Awaitable):
            looking = asyncio.create_task(_resolve(future, outcome))
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)
        else:
            future.set_result(outcome)


async def _resolve(future: Answer, awaitable: Awaitable[Outcome]) -> None:
    try:
        outcome = await awaitable
    except Exception as error:  # noqa: BLE001 - for the caller
        if not future.done():
            future.set_exception(error)
        return
    if not future.done():
        future.set_result(outcome)


async def connect(nats: Any, url: str, closed: asyncio.Event) -> Any:
    """Connect once; the caller reconnects. `closed` is set when the connection is lost.

    Raises:
        BrokerUnavailable: the server cannot be reached.
        InvalidArgument: the server refuses the user.
    """
    last: list[str] = []

    async def note(error: Exception) -> None:
        last[:] = [error_text(error)]

    async def gone() -> None:
        closed.set()

    try:
        # Without these two options the client tries for two minutes, reconnecting or not.
        return await nats.connect(
            url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0.1,
            connect_timeout=PATIENCE, ping_interval=15, max_outstanding_pings=2, error_cb=note,
            closed_cb=gone,
        )  # fmt: skip
    except nats.errors.AuthorizationError as error:
        raise InvalidArgument("NATS refuses user, password or token of the URL") from error
    except (nats.errors.Error, TimeoutError, OSError) as error:
        if "authorization violation" in str(error).lower():
            raise InvalidArgument("NATS refuses user, password or token of the URL") from error
        words = ", ".join(dict.fromkeys([error_text(error), *last]))
        raise BrokerUnavailable(f"NATS cannot be reached: {words}") from error


def _headers(message: BrokerMessage) -> dict[str, str]:
    headers = message.all_headers("ce-")
    if message.headers:
        headers = {_kept(name): _plain(value) for name, value in headers.items()}
    elif message.key is not None:
        headers["durable-notify-key"] = _plain(message.key)
    headers["content-type"] = message.content_type
    headers["Nats-Msg-Id"] = message.id
    return headers


def _plain(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


@functools.lru_cache(1000)
def _kept(name: str) -> str:
    """Return the name under which a publisher's header is sent.

    Trap: a publisher's Nats-Rollup would purge the stream. And a client takes a message with a
    Status for one of the server's own, and drops it.
    """
    steers = name.lower().startswith("nats-") or name.lower() == "status"
    return f"x-{name}" if steers else name


@functools.lru_cache(1000)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _flaw_of_names(headers: Iterable[str]) -> str | None:
    for name in headers:
        if not _is_name(name):
            return f"NATS cannot carry a header of the name {name[:40]!r}"
    return None


def _flaw_of_size(headers: Mapping[str, str], body: int, max_payload: int) -> str | None:
    # Trap: the client checks only the body. The server counts headers too, and closes the
    # connection if a message is too large.
    size = body + 12
    for name, value in headers.items():
        size += len(name) + len(value) + 4
    if max_payload and size > max_payload:
        return (
            f"NATS says: maximum payload exceeded; it has {size} bytes, and max_payload is "
            f"{max_payload}"
        )
    return None


@functools.lru_cache(1000)
def _flaw_of_subject(subject: str) -> str | None:
    if _NOT_IN_SUBJECT.search(subject) or "" in subject.split("."):
        return (
            f"{subject[:80]!r} is no subject of NATS's: words between dots, without white space, "
            "* and >, and none of them empty"
        )
    return None


class Source:
    """Receives messages from a NATS stream, by a durable consumer."""

    def __init__(self, url: str, queue: str, group: str) -> None:
        (self._nats, self._errors, self._js, self._api) = client_of(
            "nats", "nats", "nats.errors", "nats.js.errors", "nats.js.api"
        )
        if not url_parts(url).hostname:
            raise InvalidArgument("the URL names no host: write nats://USER:PASSWORD@HOST:4222")
        if re.search(r"[\s.*>/\\]", group):
            raise InvalidArgument("a durable consumer's name has no white space, . * > / and \\")
        self._url, self._stream, self._group = url, queue, group
        self._client: Any = None
        self._reading: Any = None
        self._broken = asyncio.Event()

    async def connect(self) -> None:
        """Connect, and create or find the durable consumer."""
        self._broken = asyncio.Event()
        self._client = await connect(self._nats, self._url, self._broken)
        read_all_headers(self._client)
        stream = self._client.jetstream(timeout=PATIENCE)
        try:
            await stream.stream_info(self._stream)
            config = self._api.ConsumerConfig(ack_wait=ACK_WAIT, max_ack_pending=20_000)
            self._reading = await stream.pull_subscribe(
                "", durable=self._group, stream=self._stream, config=config
            )
        except self._js.NotFoundError as error:
            raise InvalidArgument(f"NATS says: there is no stream {self._stream!r}") from error
        except self._js.BadRequestError as error:
            raise InvalidArgument(f"NATS says: {error_text(error)}") from error
        except (self._errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"NATS does not answer: {error_text(error)}") from error

    async def receive(self, limit: int) -> list[IncomingMessage]:
        """Return some messages."""
        fetching = self._reading.fetch(limit, timeout=IDLE)
        try:
            messages = await unless_set(self._broken, fetching)
        except TimeoutError:
            messages = []
        except (self._errors.Error, OSError) as error:
            raise BrokerUnavailable(f"the connection to NATS broke: {error_text(error)}") from error
        if messages is None:
            raise BrokerUnavailable("the connection to NATS broke")
        if not messages:
            await self._check_consumer()
        return [self._incoming(message) for message in messages]

    async def _check_consumer(self) -> None:
        """Check that the durable consumer exists: it does not after a stream was recreated."""
        try:
            await self._client.jetstream(timeout=PATIENCE).consumer_info(self._stream, self._group)
        except (self._errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"NATS has no consumer: {error_text(error)}") from error

    async def ack(self, messages: Sequence[IncomingMessage]) -> None:
        """Acknowledge messages."""
        try:
            for message in messages:
                if not message.receipt.is_acked:
                    await message.receipt.ack()
            await self._client.flush(PATIENCE)
        except (self._errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable(f"the connection to NATS broke: {error_text(error)}") from error

    async def reject(self, message: IncomingMessage, *, keep: bool = False) -> None:
        """End the redelivery of a message, which stays in its stream. `keep`: redeliver it soon."""
        if keep:
            message.receipt._ackd = True  # noqa: SLF001 - taken for acknowledged, it is not
            return
        with contextlib.suppress(self._errors.Error, OSError):
            await message.receipt.term()

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close()

    def _incoming(self, message: Any) -> IncomingMessage:
        headers: dict[str, Any] = {
            name.removeprefix(THEIRS): value for name, value in (message.headers or {}).items()
        }
        about = message.metadata
        key = headers.pop("durable-notify-key", None)
        if isinstance(key, list):
            key = key[-1]
        if key is not None and key.startswith('"'):
            with contextlib.suppress(ValueError):
                key = json.loads(key)
        kind = headers.pop("content-type", "")
        return IncomingMessage(
            body=message.data,
            # With the time, because a recreated stream counts from 1 again.
            id=f"nats/{self._stream}/{about.sequence.stream}/{about.timestamp.timestamp()}",
            key=key,
            content_type=kind if isinstance(kind, str) else kind[-1],
            headers=headers,
            receipt=message,
        )
