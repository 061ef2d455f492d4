"""The options of a consumer, checked."""

from __future__ import annotations

import dataclasses
import difflib
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict

from ._core.callables import is_async, left_undone
from ._core.leases import Ack, Outcome, Reject, Retry
from ._core.sanitize import describe, text_of, to_storable
from .errors import InvalidArgument
from .events import OnEvent, subscribers
from .middleware import Middleware
from .topics import check_group, check_pattern, listed

__all__ = [
    "ConsumerOptions", "ConsumerSettings", "ErrorRules", "GroupSettings", "OrderBy", "Start",
    "check_count", "check_group_settings", "check_known", "check_on_event", "check_period",
    "check_reading", "check_waiting",
]  # fmt: skip

_LONGEST = 1e9  # seconds, about 30 years; a thread can wait for 290 years at most

Start = Literal["beginning", "now"] | datetime
OrderBy = Literal["none", "key", "strict"]
#: The outcome of a message whose handler raised: by type of exception, the first that matches; or a
#: function of the exception and the message. None: retried by the group's backoff.
ErrorRules = Mapping[type[BaseException], Outcome] | Callable[[BaseException, Any], Outcome | None]


class GroupSettings(TypedDict, total=False):
    """Options of a group, for all its consumers. Times are in seconds.

    Attributes:
        order_by: ``"key"`` (the default): deliver messages of a key one at a time, in order;
            ``"strict"``: the same for a whole topic, by id; ``"none"``.
        exclusive: one consumer at a time receives messages; the others stand by.
        max_attempts: after how many a message becomes a dead letter; default 20.
        retry_base: the delay after the first failed attempt; default 1.
        retry_factor: the factor of each further delay; default 2.
        retry_max: the longest delay; default 300. Half of each delay is random.
        on_expiry: ``"drop"`` (counted) or ``"dead_letter"``, for messages past their expiry.
        park_limit: how many messages of a topic may be parked before all wait; default 10,000.
        max_in_flight: the most messages leased at once, over all consumers; None: no limit.
        rate_limit: the most messages delivered a second, over all consumers; None: no limit.
    """

    order_by: OrderBy
    exclusive: bool
    max_attempts: int
    retry_base: float
    retry_factor: float
    retry_max: float
    on_expiry: Literal["drop", "dead_letter"]
    park_limit: int
    max_in_flight: int | None
    rate_limit: float | None


class ConsumerSettings(TypedDict, total=False):
    """Options of a consumer besides its group and topics; see ``ConsumerOptions``."""

    start: Start
    lease: float
    batch_size: int
    prefetch: int
    prefetch_bytes: int | None
    poll: float | None
    idle_poll: float | None
    heartbeat: float
    handler_timeout: float | None
    until_empty: bool
    owner: str
    concurrency: int
    middleware: Sequence[Middleware]
    on_error: ErrorRules
    on_event: OnEvent | Sequence[OnEvent] | None
    maintenance: bool
    order_by: OrderBy | None
    exclusive: bool | None
    max_attempts: int | None
    retry_base: float | None
    retry_factor: float | None
    retry_max: float | None
    on_expiry: Literal["drop", "dead_letter"] | None
    park_limit: int | None
    max_in_flight: int | None
    rate_limit: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """The options of a consumer. Times are in seconds.

    Args:
        group: the consumer group; created when first used.
        topics: the topics to consume; new ones are added to the group. If there are none, those
            that have handlers by ``on``. A topic may be a pattern
            of words between dots: ``*`` stands for one word, a last ``>`` for one or more. The
            group discovers new topics that match.
        start: where a new group starts in a topic: ``"beginning"`` (all retained messages),
            ``"now"`` (what commits from here on), or a time. An existing group continues at its
            position.
        lease: how long this consumer keeps a batch after its last sign of life.
        batch_size: the most messages in one claim.
        prefetch: the most messages held unsettled, including buffered ones.
        prefetch_bytes: about how large their payloads may be together; None: no limit.
        poll: how often to poll without a wake-up, as a safety net; None switches polling off.
        idle_poll: replaces ``poll`` for a database that is suspended while idle. While a consumer
            waits for messages, it sends the database nothing at all, and does not reopen lost
            connections, until a wake-up or so many seconds.
        heartbeat: how often to check that connections are alive. A dead one is found and replaced
            within two heartbeats; a statement without an answer within two is given up.
        handler_timeout: how long a handler may take. After that its message is retried, by the
            rules for errors. The handler is cancelled, or given up if it is a thread. None: no
            limit.
        until_empty: stop once nothing is left: nothing unread, leased or deferred.
        owner: the holder of the leases, for people; default ``host:pid``.
        concurrency: how many messages to handle at once, unless ``run`` is told another number.
        middleware: runs around each call of a handler, the first outermost (``Middleware``).
        on_error: the outcome of a message whose handler raised, by type of exception:
            ``{KeyError: Reject(), TimeoutError: Retry(60)}``; or a function of the exception and
            the message that returns an outcome. If no rule matches, the message is retried.
        on_event: a function, or several, called with every event (``durable_notify.events``).
        maintenance: run maintenance beside consuming, once a minute, if no other process does
            and the role owns the schema.

    The others are the group's (``GroupSettings``). Those that are given are set for all its
    consumers; the others stay unchanged.
    """

    group: str
    topics: tuple[str, ...] = ()
    start: Start = "beginning"
    lease: float = 30.0
    batch_size: int = 500
    prefetch: int = 2000
    prefetch_bytes: int | None = None
    poll: float | None = 30.0
    idle_poll: float | None = None
    heartbeat: float = 15.0
    handler_timeout: float | None = None
    until_empty: bool = False
    owner: str = dataclasses.field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    concurrency: int = 1
    middleware: Sequence[Middleware] = ()
    on_error: ErrorRules = dataclasses.field(default_factory=dict)
    on_event: OnEvent | Sequence[OnEvent] | None = None
    maintenance: bool = True
    order_by: OrderBy | None = None
    exclusive: bool | None = None
    max_attempts: int | None = None
    retry_base: float | None = None
    retry_factor: float | None = None
    retry_max: float | None = None
    on_expiry: Literal["drop", "dead_letter"] | None = None
    park_limit: int | None = None
    max_in_flight: int | None = None
    rate_limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", check_group(self.group))
        names = dict.fromkeys(map(check_pattern, listed(self.topics)))
        object.__setattr__(self, "topics", tuple(names))
        if not isinstance(self.owner, str) or self.owner != to_storable(self.owner):
            raise InvalidArgument(
                f"owner must be a str without NUL and lone surrogates, not {self.owner!r}"
            )
        object.__setattr__(self, "owner", str.__str__(self.owner))
        if isinstance(self.start, datetime):
            if self.start.tzinfo is None:
                raise InvalidArgument("start has no time zone: give an aware datetime")
        elif self.start not in ("beginning", "now"):
            raise InvalidArgument(
                f'start must be "beginning", "now" or a datetime, not {self.start!r}'
            )
        for name in ("lease", "heartbeat"):
            _check_seconds(name, getattr(self, name), optional=False)
        for name in ("poll", "idle_poll", "handler_timeout"):
            _check_seconds(name, getattr(self, name), optional=True)
        _check_count("batch_size", self.batch_size, 10_000)
        _check_count("prefetch", self.prefetch, 1_000_000)
        check_count("concurrency", self.concurrency)
        if self.prefetch_bytes is not None:
            _check_count("prefetch_bytes", self.prefetch_bytes, 2**50)
        _check_rules(self.on_error)
        check_on_event(self.on_event)
        if not isinstance(self.maintenance, bool):
            raise InvalidArgument(f"maintenance must be True or False, not {self.maintenance!r}")
        check_group_settings(self.group_settings)

    @property
    def group_settings(self) -> dict[str, Any]:
        """The group's options that were given."""
        given = ((name, getattr(self, name)) for name in GroupSettings.__annotations__)
        return {name: value for name, value in given if value is not None}

    def outcome_of(self, error: BaseException, message: Any) -> Outcome:
        """Return the outcome of a message whose handler raised.

        Raises:
            InvalidArgument: ``on_error`` returned something else. What it raises passes through.
        """
        rules = self.on_error
        outcome: Outcome | None = None
        if isinstance(rules, Mapping):
            outcome = next((to for kind, to in rules.items() if isinstance(error, kind)), None)
        else:
            outcome = rules(error, message)
            if not (outcome is None or isinstance(outcome, (Ack, Retry, Reject))):
                left_undone(outcome)
                raise InvalidArgument(
                    "on_error must return Ack(), Retry(), Reject() or None, "
                    f"not {type(outcome).__name__}"
                )
        if outcome is None:
            outcome = Retry()
        if isinstance(outcome, Ack) or outcome.error is not None:
            return outcome
        if isinstance(outcome, Reject) and outcome.reason == "rejected":
            outcome = Reject(f"{type(error).__name__}: {text_of(error)}"[:500])
        return dataclasses.replace(outcome, error=describe(error))


def check_group_settings(settings: Mapping[str, Any]) -> None:
    """Raise InvalidArgument if an option of a group is invalid."""
    for name, value in settings.items():
        if name in ("max_in_flight", "rate_limit") and value is None:
            continue  # removes the limit
        if name in ("retry_base", "retry_max"):
            _check_seconds(name, value, optional=False)
        elif name in ("max_attempts", "park_limit", "max_in_flight"):
            _check_count(name, value, 2**31 - 1)
        elif name == "retry_factor":
            _check_number(name, value, 1, 100)
        elif name == "rate_limit":
            _check_number(name, value, 1e-6, 1_000_000)
        elif name in _WORDS and value not in _WORDS[name]:
            raise InvalidArgument(f"{name} must be one of {', '.join(_WORDS[name])}, not {value!r}")
        elif name == "exclusive" and not isinstance(value, bool):
            raise InvalidArgument(f"exclusive must be True or False, not {value!r}")
        elif name not in GroupSettings.__annotations__:
            raise _unknown("a group", name, GroupSettings.__annotations__)


def check_known(options: Iterable[str]) -> None:
    """Raise InvalidArgument if a consumer has no such option."""
    for name in options:
        if name not in ConsumerSettings.__annotations__:
            raise _unknown("a consumer", name, ConsumerSettings.__annotations__)


def _unknown(whose: str, name: str, known: Iterable[str]) -> InvalidArgument:
    """Return the error of an unknown option, with the one that may have been meant."""
    meant = _CALLED.get(name) or next(iter(difflib.get_close_matches(name, known, 1)), None)
    if meant is None or meant.split("(")[0] not in {*known, "run"}:
        return InvalidArgument(f"{whose} has no option {name!r}; it has {', '.join(known)}")
    return InvalidArgument(f"{whose} has no option {name!r}. Did you mean {meant}?")


#: Names of other libraries for some of the options.
_CALLED = {
    "max_retries": "max_attempts", "retries": "max_attempts", "max_deliver": "max_attempts",
    "max_tries": "max_attempts", "retry_delay": "retry_base", "backoff": "retry_base",
    "visibility_timeout": "lease", "lock_timeout": "lease", "ack_wait": "lease", "vt": "lease",
    "prefetch_count": "prefetch", "poll_interval": "poll", "polling_interval": "poll",
    "auto_offset_reset": "start", "max_inflight": "max_in_flight", "timeout": "handler_timeout",
    "workers": "concurrency", "max_workers": "concurrency", "handler": "run(handler)",
}  # fmt: skip
_WORDS = {"order_by": ("none", "key", "strict"), "on_expiry": ("drop", "dead_letter")}


def check_reading(start: str | datetime, poll: float | None, batch_size: int) -> None:
    """Raise InvalidArgument if an option of a reader is invalid."""
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise InvalidArgument("start has no time zone: give an aware datetime")
    elif not isinstance(start, str):
        raise InvalidArgument(f"start must be a word, a token or a datetime, not {start!r}")
    _check_seconds("poll", poll, optional=True)
    _check_count("batch_size", batch_size, 10_000)


def check_period(name: str, seconds: float, *, least: float | None = None) -> None:
    """Raise InvalidArgument unless it is a positive number of seconds, or ``least``."""
    if least is None or seconds != least or isinstance(seconds, bool):
        _check_seconds(name, seconds, optional=False)


def check_waiting(idle_poll: float | None, heartbeat: float) -> None:
    """Raise InvalidArgument for an invalid option of waiting."""
    _check_seconds("idle_poll", idle_poll, optional=True)
    _check_seconds("heartbeat", heartbeat, optional=False)


def check_on_event(on_event: OnEvent | Sequence[OnEvent] | None) -> None:
    """Raise InvalidArgument unless ``on_event`` can be called."""
    known = on_event is None or callable(on_event) or isinstance(on_event, (list, tuple))
    for one in subscribers(on_event) if known else [on_event]:
        if not callable(one):
            raise InvalidArgument(f"on_event must be a function or a list of them, not {one!r}")
        if is_async(one):
            raise InvalidArgument(f"on_event takes plain functions, and {one!r} is async")


def _check_rules(rules: ErrorRules) -> None:
    if not isinstance(rules, Mapping):
        if not callable(rules):
            raise InvalidArgument(f"on_error must be a mapping or a function, not {rules!r}")
        if is_async(rules):
            raise InvalidArgument(f"on_error takes a plain function, and {rules!r} is async")
        return
    for kind, outcome in rules.items():
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise InvalidArgument(f"on_error maps kinds of exceptions, not {kind!r}")
        if not isinstance(outcome, (Ack, Retry, Reject)):
            raise InvalidArgument(f"on_error maps to Ack(), Retry() or Reject(), not {outcome!r}")


def _check_number(name: str, value: float, least: float, greatest: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= greatest:
        raise InvalidArgument(
            f"{name} must be a number from {least:g} to {greatest:g}, not {value!r}"
        )


def _check_seconds(name: str, value: float | None, *, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= _LONGEST:
        raise InvalidArgument(f"{name} must be a positive number of seconds, not {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise InvalidArgument unless it is 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(f"{name} must be 1 or more, not {value!r}")


def _check_count(name: str, value: int, greatest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= greatest:
        raise InvalidArgument(f"{name} must be a whole number from 1 to {greatest}, not {value!r}")
