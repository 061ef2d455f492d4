"""The interface of a relay to a broker, and what the modules of the brokers share.

Each broker is a module of its own, imported only by name, because its client is an extra.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from .._core.sanitize import redact
from ..errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from datetime import datetime

    from .routes import Routes

T = TypeVar("T")

__all__ = [
    "SENT",
    "UNCARRIED",
    "Answer",
    "Broker",
    "BrokerMessage",
    "Gone",
    "Outcome",
    "Rejected",
    "Report",
    "RetryLater",
    "Sent",
    "Skipped",
    "Unconfirmed",
    "WorkingRoutes",
    "broker_class",
    "by_ordering_key",
    "client_of",
    "error_text",
    "kind_of",
    "unless_set",
    "url_parts",
]  # fmt: skip

#: By the scheme of the URL: the module, and its classes.
_BROKERS = {
    "amqp": "rabbitmq", "amqps": "rabbitmq",
    "kafka": "kafka",
    "nats": "nats", "tls": "nats",
    "https": "webhooks", "http": "webhooks",
    "redis": "redis", "rediss": "redis", "unix": "redis",
}  # fmt: skip
_FORMS = (
    "amqp://USER:PASSWORD@HOST/VHOST, kafka://HOST:9092,HOST:9092, nats://HOST:4222, "
    "redis://HOST:6379/0, https://HOST/PATH"
)


@dataclasses.dataclass(slots=True, repr=False)  # a frozen one takes four times as long to make
class BrokerMessage:
    """A message as a broker receives it.

    ``id`` is for deduplication downstream: the message's id and the microsecond in which it was
    published. An id alone may be reused: in another database, or after a fail-over that lost
    messages.
    """

    id: str
    topic: str
    key: str | None
    body: bytes
    content_type: str
    headers: Mapping[str, str]
    published_at: datetime
    route: Mapping[str, str]  # the fields of the mapping, filled in
    #: Messages with the same key are sent one after the other; None: in no order.
    ordering_key: object
    #: Whether to send it. If not, it counts as sent, in its turn.
    wanted: bool = True

    def all_headers(self, cloudevents: str) -> dict[str, str]:
        """Return the headers and the origin; ``cloudevents`` is the prefix of event attributes."""
        headers = {}
        for name, value in self.headers.items():
            headers[cloudevents + name[3:] if name.startswith("ce_") else name] = value
        headers["durable-notify-id"] = self.id
        headers["durable-notify-topic"] = self.topic
        if self.key is not None:
            headers["durable-notify-key"] = self.key
        return headers


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """The broker has confirmed the message."""


SENT = Sent()


@dataclasses.dataclass(frozen=True, slots=True)
class Skipped(Sent):
    """The message was not wanted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """The broker will never accept the message; ``reason`` is the broker's text.

    Use it only if that is known to be final: an unknown error is ``Unconfirmed``.
    """

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class RetryLater:
    """The broker did not accept the message, and may later; for example its queue is full."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The message was not sent, or not confirmed, or the broker's error is unknown.

    The relay sends it again. If it keeps failing while others pass, it becomes ``RetryLater``.
    """

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Gone(Unconfirmed):
    """The broker wants no more messages at all: the relay pauses its group, and ends."""


Outcome = Sent | Rejected | RetryLater | Unconfirmed
#: Called with a message's index and its outcome, as soon as the outcome is final.
Report = Callable[[int, Outcome], None]

#: Errors that clients raise before they send, for what their protocol cannot carry.
UNCARRIED = (TypeError, ValueError, OverflowError, LookupError, struct.error)


class WorkingRoutes:
    """Remembers the latest routes by which messages have arrived.

    A message without a queue or stream is rejected. If its route worked before, it waits instead:
    the queue may be on a node that is down, or may be recreated just now.
    """

    MAX = 10_000

    def __init__(self) -> None:
        self._routes: dict[object, None] = {}
        self._latest: object = None

    def note(self, route: object) -> None:
        """Record a route that works."""
        if route == self._latest:
            return
        self._latest = route
        self._routes.pop(route, None)
        self._routes[route] = None
        if len(self._routes) > self.MAX:
            del self._routes[next(iter(self._routes))]

    def outcome(self, route: object, words: str) -> Outcome:
        """Return the outcome of a message that no queue or stream accepts."""
        if route in self._routes:
            return Unconfirmed(f"{words}; an earlier message was accepted there")
        return Rejected(words)


class Broker(Protocol):
    """The broker to which a relay sends messages."""

    #: The fields of a mapping, with their defaults; see ``Routes``.
    fields: Mapping[str, str]

    def __init__(self, url: str) -> None:
        """Parse the URL, without connecting. Raises InvalidArgument for a URL that cannot work."""

    def check(self, field: str, template: str) -> None:
        """Raise InvalidArgument for an invalid field of a mapping."""

    async def connect(self, routes: Routes) -> None:
        """Connect, and check that what the mapping names exists.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
            InvalidArgument: the broker says that the URL or the mapping cannot work.
        """

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages and return the outcome of each; reconnect if needed.

        If a message was not sent, do not send later ones with its ordering key. Report each final
        outcome at once, because the other messages may take long.

        Raises:
            BrokerUnavailable: the broker cannot be reached; nothing was sent.
        """

    async def close(self) -> None:
        """Disconnect."""


def broker_class(url: str, what: str) -> type[Any]:
    """Return the class for the broker of a URL: ``Relay`` or ``Source`` of its module.

    Raises:
        InvalidArgument: no broker has such URLs, or its client is not installed.
    """
    scheme = url.partition("://")[0].lower() if isinstance(url, str) and "://" in url else ""
    name = _BROKERS.get(scheme)
    if name is None:
        raise InvalidArgument(f"unknown kind of broker URL. Write {_FORMS}")
    found = importlib.import_module(f"{__package__}.{name}")
    broker: type[Any] | None = getattr(found, what, None)
    if broker is None:
        raise InvalidArgument(f"{name} cannot be a source of an ingest: it works only with a relay")
    return broker


def client_of(extra: str, *modules: str) -> list[Any]:
    """Import a broker's client.

    Raises:
        InvalidArgument: it is not installed.
    """
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise InvalidArgument(
            f"the client is not installed: pip install 'durable-notify[{extra}]' ({error})"
        ) from error


def url_parts(url: str) -> Any:
    """Split a URL. Raises InvalidArgument, without quoting it: it may have a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidArgument(f"the broker's URL cannot be read. Write {_FORMS}") from error
    return parts


def error_text(error: BaseException) -> str:
    """Return the text of a broker's error, without passwords."""
    return redact(str(error) or type(error).__name__)


def kind_of(error: BaseException) -> str:
    """Return the type of a client's error about a message.

    Trap: not its text, which may quote the message, and is written to logs and dead letters.
    """
    name = type(error).__name__
    if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)):
        return f"{name}: {error.reason}"
    return name


async def unless_set(event: asyncio.Event, awaitable: Awaitable[T], grace: float = 0.0) -> T | None:
    """Await something; if the event comes first, for ``grace`` more seconds, then return None."""
    task = asyncio.ensure_future(awaitable)
    coming = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task, coming], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait([task], timeout=grace)
        return task.result() if task.done() else None
    finally:
        coming.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def by_ordering_key(
    messages: Sequence[BrokerMessage],
    begin: Callable[[BrokerMessage], Awaitable[Outcome | Later]],
    report: Report,
    broken: asyncio.Event | None = None,
) -> list[Outcome]:
    """Send messages: those of an ordering key one after another, all others at once.

    `begin`: gives a message to the client, and returns its outcome, or a future of it.
    `report`: called with each final outcome at once.
    `broken`: set when the connection is lost, after which nothing is confirmed.

    Trap: if two messages of an ordering key are in flight and only the first fails, their order is
    reversed.
    """
    sending = _InOrder(messages, begin, report)
    await (sending.run() if broken is None else unless_set(broken, sending.run()))
    return sending.outcomes


class Answer:
    """An outcome that arrives later.

    It is used like an ``asyncio.Future``, and calls back at once: through the loop, for each
    message, that costs a twentieth of all.
    """

    __slots__ = ("_call", "_error", "_is_done", "_outcome")

    def __init__(self) -> None:
        self._is_done = False
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._call: Callable[[Answer], object] | None = None

    def done(self) -> bool:
        return self._is_done

    def cancelled(self) -> bool:
        return self._outcome is None and self._error is None

    def cancel(self) -> None:
        self._is_done = True

    def exception(self) -> BaseException | None:
        return self._error

    def result(self) -> Outcome:
        outcome: Outcome = self._outcome
        return outcome

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._end()

    def set_result(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._end()

    def add_done_callback(self, call: Callable[[Answer], object]) -> None:
        self._call = call
        if self._is_done:
            call(self)

    def _end(self) -> None:
        self._is_done = True
        if self._call is not None:
            self._call(self)


Later = Answer | asyncio.Future[Outcome]


class _InOrder:
    """Sends messages from one task, because a task for each message costs more than sending it."""

    def __init__(
        self,
        messages: Sequence[BrokerMessage],
        begin: Callable[[BrokerMessage], Awaitable[Outcome | Later]],
        report: Report,
    ) -> None:
        self._messages, self._begin, self._report = messages, begin, report
        self.outcomes: list[Outcome] = [Unconfirmed("it was not confirmed")] * len(messages)
        self._ready: deque[int] = deque()  # nothing before these keeps them
        self._next: dict[int, int] = {}  # by a message, the next one of its ordering key
        self._in_flight: set[Later] = set()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        last: dict[object, int] = {}
        for index, message in enumerate(messages):
            key = message.ordering_key
            if key is not None and key in last:
                self._next[last[key]] = index
            else:
                self._ready.append(index)
            last[key] = index

    async def run(self) -> None:
        try:
            while self._ready or self._in_flight:
                self._changed.clear()
                while self._ready:
                    await self._send(self._ready.popleft())
                if self._in_flight:
                    await self._changed.wait()
                if self._failure is not None:
                    raise self._failure
        finally:
            for future in self._in_flight:
                future.cancel()

    async def _send(self, index: int) -> None:
        begun = await self._begin(self._messages[index])
        if not isinstance(begun, (Answer, asyncio.Future)):
            self._over(index, begun)
            return
        self._in_flight.add(begun)
        begun.add_done_callback(functools.partial(self._answered, index))

    def _answered(self, index: int, future: Later) -> None:
        if future not in self._in_flight or future.cancelled():
            return
        self._in_flight.discard(future)
        if (error := future.exception()) is not None:
            self._failure = error
        else:
            self._over(index, future.result())
        if self._ready or not self._in_flight or self._failure is not None:
            self._changed.set()

    def _over(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        if not isinstance(outcome, Unconfirmed):
            self._report(index, outcome)
        if index in self._next and not isinstance(outcome, (RetryLater, Unconfirmed)):
            self._ready.append(self._next[index])
