"""What a relay asks of a broker, and what the modules of the brokers share.

Each broker is a module of its own that is imported only by name: its client is an extra.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import struct
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
    "UNCARRIED",
    "Broker",
    "BrokerMessage",
    "Outcome",
    "Refused",
    "RetryLater",
    "Sent",
    "Told",
    "Unconfirmed",
    "Worked",
    "broker_class",
    "by_ordering_key",
    "client_of",
    "error_text",
    "kind_of",
    "unless_set",
    "url_parts",
]  # fmt: skip

#: By the scheme of their URLs: the module, and what of it to take.
_BROKERS = {
    "amqp": "rabbitmq", "amqps": "rabbitmq",
    "kafka": "kafka",
    "nats": "nats", "tls": "nats",
    "redis": "redis", "rediss": "redis", "unix": "redis",
}  # fmt: skip
_FORMS = (
    "amqp://USER:PASSWORD@HOST/VHOST, kafka://HOST:9092,HOST:9092, nats://HOST:4222, "
    "redis://HOST:6379/0"
)


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class BrokerMessage:
    """A message as a broker gets it.

    ``id`` is for deduplication downstream: the message's id and the microsecond in which it was
    published. An id alone may be used again: in another database, or after a fail-over in which
    messages were lost.
    """

    id: str
    topic: str
    key: str | None
    body: bytes
    content_type: str
    headers: Mapping[str, str]
    published_at: datetime
    to: Mapping[str, str]  # what the mapping says, filled in
    lane: object  # parcels of one lane are sent one after the other; None: in no order

    def all_headers(self, cloudevents: str) -> dict[str, str]:
        """Return the headers, and where it comes from; attributes of a CloudEvent by a prefix."""
        headers = {
            cloudevents + name[3:] if name.startswith("ce_") else name: value
            for name, value in self.headers.items()
        }
        headers["durable-notify-id"] = self.id
        headers["durable-notify-topic"] = self.topic
        if self.key is not None:
            headers["durable-notify-key"] = self.key
        return headers


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """The broker has confirmed it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The broker will never take it; its own words.

    Only what is known to be final: an error that nobody knows is ``Unconfirmed``.
    """

    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class RetryLater:
    """The broker did not take this one, and may another time: its queue is full, say."""

    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Unconfirmed:
    """It was not sent, or sent and not confirmed, or what the broker says is not known: it waits.

    It is sent again; one that fails again and again while others pass is ``Later``, in the end.
    """

    words: str


Outcome = Sent | Refused | RetryLater | Unconfirmed
#: Told of a parcel's place what became of it, as soon as that is known for good.
Told = Callable[[int, Outcome], None]

#: What clients raise, before they send, for what their protocol cannot carry.
UNCARRIED = (TypeError, ValueError, OverflowError, LookupError, struct.error)


class Worked:
    """The routes by which messages have arrived, the latest of them.

    Where there is no place for a message, that is final. Where there was one, its queue or stream
    may be on a node that is down, or is deleted to be made again: the message waits.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._routes: dict[object, None] = {}

    def note(self, route: object) -> None:
        """Take note of a route that works."""
        self._routes.pop(route, None)
        self._routes[route] = None
        if len(self._routes) > self.MOST:
            del self._routes[next(iter(self._routes))]

    def outcome(self, route: object, words: str) -> Outcome:
        """What becomes of a message for which there is no place."""
        if route in self._routes:
            return Unconfirmed(f"{words}; an earlier message was accepted there")
        return Refused(words)


class Broker(Protocol):
    """A broker that messages are relayed to."""

    #: What a mapping may say, and what it says where nothing is given; see ``Routes``.
    fields: Mapping[str, str]

    def __init__(self, url: str) -> None:
        """Take note of where it is. Raises InvalidArgument for a URL that cannot work."""

    def check(self, field: str, template: str) -> None:
        """Raise InvalidArgument for what a mapping cannot say."""

    async def connect(self, routes: Routes) -> None:
        """Connect, and see that what the mapping names is there.

        Raises:
            BrokerUnavailable: the broker cannot be reached.
            InvalidArgument: it can, and the URL or the mapping cannot work.
        """

    async def send(self, parcels: Sequence[BrokerMessage], told: Told) -> list[Outcome]:
        """Send parcels, and say of each what became of it; connects anew where needed.

        After a parcel that was not sent, none of its lane is. What is confirmed is told at once:
        the others may keep it waiting.

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
    """Return what a broker says, without passwords."""
    return redact(str(error) or type(error).__name__)


def kind_of(error: BaseException) -> str:
    """Return what kind of error a client raised for a message.

    Trap: its text may quote the message, and goes into logs and dead letters.
    """
    name = type(error).__name__
    if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)):
        return f"{name}: {error.reason}"
    return name


async def unless_set(event: asyncio.Event, awaitable: Awaitable[T], grace: float = 0.0) -> T | None:
    """Await something; where the event comes first, for ``grace`` seconds more, and then None."""
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
    parcels: Sequence[BrokerMessage],
    send: Callable[[BrokerMessage], Awaitable[Outcome]],
    told: Told,
    broken: asyncio.Event | None = None,
) -> list[Outcome]:
    """Send parcels one by one: those of a lane after one another, all else at once.

    `told`: what is known for good is said there at once.
    `broken`: set where the connection is gone, and nothing will be confirmed any more.

    Trap: two parcels of a lane under way at once change places where the first fails and the second
    does not.
    """
    lanes: dict[object, list[int]] = {}
    for place, parcel in enumerate(parcels):
        lanes.setdefault(object() if parcel.lane is None else parcel.lane, []).append(place)
    outcomes: list[Outcome] = [Unconfirmed("it was not confirmed")] * len(parcels)

    async def lane(places: list[int]) -> None:
        for place in places:
            outcome = outcomes[place] = await send(parcels[place])
            if not isinstance(outcome, Unconfirmed):
                told(place, outcome)
            if isinstance(outcome, (RetryLater, Unconfirmed)):
                return

    sending = asyncio.gather(*map(lane, lanes.values()))
    await (sending if broken is None else unless_set(broken, sending))
    return outcomes
