"""What a consumer group stores, for all its consumers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict

from ._core.checks import check_count, check_number, check_word, unknown_option
from .durations import Seconds, check_time, in_seconds
from .errors import InvalidArgument
from .topics import check_group

__all__ = [
    "LIMITS", "RETRY", "STORED", "Group", "GroupSettings", "OnExpiry", "OrderBy", "RetryPolicy",
    "Start", "as_group", "changed", "delays_of", "with_retry_policy",
]  # fmt: skip

Start = Literal["beginning", "now"] | datetime
OrderBy = Literal["none", "key", "strict"]
OnExpiry = Literal["drop", "dead_letter"]

#: The options that the database stores, by their names there.
STORED = (
    "order_by", "exclusive", "max_attempts", "retry_base", "retry_factor", "retry_max",
    "retry_delays", "on_expiry", "park_limit", "max_in_flight", "rate_limit",
)  # fmt: skip
#: Those that are a RetryPolicy, and their names there.
RETRY = {
    "max_attempts": "max_attempts", "retry_base": "base", "retry_factor": "factor",
    "retry_max": "max", "retry_delays": "delays",
}  # fmt: skip
#: Limits that can be removed again.
LIMITS = ("max_in_flight", "rate_limit")
_INT = 2**31 - 1
_MAX_DELAYS = 100


class _Given:
    """Shows only what was given."""

    __slots__ = ()

    def __repr__(self) -> str:
        named = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value != field.default:
                named.append(repr(value) if field.name == "name" else f"{field.name}={value!r}")
        return f"dn.{type(self).__name__}({', '.join(named)})"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RetryPolicy(_Given):
    """When a group redelivers a message that failed, and when it gives the message up.

    What is left out stays as the group has it.

    Args:
        max_attempts: after how many a message becomes a dead letter; 20 in a new group.
        base: the delay after the first failed attempt; 1 second in a new group.
        factor: the factor of each further delay; 2 in a new group.
        max: the longest delay; 300 seconds in a new group. Half of each delay is random.
        delays: the delays after each attempt, one by one, and then the last one, instead of those
            by base, factor and max; an empty list: by those again.
    """

    max_attempts: int | None = None
    base: Seconds | None = None
    factor: float | None = None
    max: Seconds | None = None
    delays: list[Seconds] | tuple[Seconds, ...] | None = None

    def __post_init__(self) -> None:
        if self.max_attempts is not None:
            check_count("max_attempts", self.max_attempts, _INT)
        for name in ("base", "max"):
            seconds = in_seconds(f"{name} of a RetryPolicy", getattr(self, name), optional=True)
            object.__setattr__(self, name, seconds)
        if self.factor is not None:
            check_number("factor of a RetryPolicy", self.factor, 1, 100)
        if self.delays is not None:
            if not isinstance(self.delays, (list, tuple)) or len(self.delays) > _MAX_DELAYS:
                raise InvalidArgument(f"delays must be a list, of {_MAX_DELAYS} at most")
            each = (in_seconds("each of delays", delay, zero=True) for delay in self.delays)
            object.__setattr__(self, "delays", tuple(map(float, each)))


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Group(_Given):
    """A consumer group with its options, which are stored for all its consumers.

    What is left out stays as the group has it. A consumer that starts sets what is given.

    Args:
        name: the name of the group; it is created when first used.
        start: where the group starts in a topic that is new to it: ``"beginning"`` (all retained
            messages), ``"now"`` (what commits from here on), or a time. Otherwise it continues at
            its position.
        order_by: ``"key"``, as in a new group: deliver messages of a key one at a time, in order;
            ``"strict"``: the same for a whole topic, by id; ``"none"``.
        exclusive: one consumer at a time receives messages; the others stand by.
        retry: when to redeliver a message that failed, and when to give it up.
        on_expiry: ``"drop"`` (counted) or ``"dead_letter"``, for messages past their expiry.
        park_limit: how many messages of a topic may be parked before all wait; 10,000 in a new
            group.
        max_in_flight: the most messages leased at once, over all consumers. A new group has no
            limit; to remove it, use ``Admin.configure(max_in_flight=None)``.
        rate_limit: the most messages delivered a second, over all consumers; removed likewise.
    """

    name: str
    _: dataclasses.KW_ONLY
    start: Start = "beginning"
    order_by: OrderBy | None = None
    exclusive: bool | None = None
    retry: RetryPolicy | None = None
    on_expiry: OnExpiry | None = None
    park_limit: int | None = None
    max_in_flight: int | None = None
    rate_limit: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_group(self.name))
        _check_start(self.start)
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise InvalidArgument(f"retry must be a dn.RetryPolicy, not {self.retry!r}")
        if self.exclusive is not None and not isinstance(self.exclusive, bool):
            raise InvalidArgument(f"exclusive must be True or False, not {self.exclusive!r}")
        if self.order_by is not None:
            check_word("order_by", self.order_by, ("none", "key", "strict"))
        if self.on_expiry is not None:
            check_word("on_expiry", self.on_expiry, ("drop", "dead_letter"))
        for name in ("park_limit", "max_in_flight"):
            if (value := getattr(self, name)) is not None:
                check_count(name, value, _INT)
        if self.rate_limit is not None:
            check_number("rate_limit", self.rate_limit, 1e-6, 1_000_000)

    @property
    def stored(self) -> dict[str, Any]:
        """The options to store, by their names in the database; those that were given."""
        retry = self.retry or RetryPolicy()
        values = (
            self.order_by, self.exclusive, retry.max_attempts, retry.base, retry.factor, retry.max,
            None if retry.delays is None else list(retry.delays),
            self.on_expiry, self.park_limit, self.max_in_flight, self.rate_limit,
        )  # fmt: skip
        pairs = zip(STORED, values, strict=True)
        return {name: value for name, value in pairs if value is not None}


def _check_start(start: Start) -> None:
    if isinstance(start, datetime):
        check_time("start", start)
    elif start not in ("beginning", "now"):
        raise InvalidArgument(f'start must be "beginning", "now" or a datetime, not {start!r}')


class GroupSettings(TypedDict, total=False):
    """The options of a group that ``Admin.configure`` changes; see ``Group``."""

    order_by: OrderBy
    exclusive: bool
    retry: RetryPolicy
    on_expiry: OnExpiry
    park_limit: int
    max_in_flight: int | None
    rate_limit: float | None


#: What to write for other names of what a group stores: in the database, and of other libraries.
_ATTEMPTS = "retry=dn.RetryPolicy(max_attempts=...)"
_DELAY = "retry=dn.RetryPolicy(base=...)"
CALLED = {
    "max_attempts": _ATTEMPTS, "retry_base": _DELAY,
    "retry_factor": "retry=dn.RetryPolicy(factor=...)",
    "retry_max": "retry=dn.RetryPolicy(max=...)",
    "retry_delays": "retry=dn.RetryPolicy(delays=...)",
    "max_retries": _ATTEMPTS, "retries": _ATTEMPTS, "max_deliver": _ATTEMPTS,
    "max_tries": _ATTEMPTS, "retry_delay": _DELAY, "backoff": _DELAY,
    "max_inflight": "max_in_flight=...",
}  # fmt: skip


def as_group(group: str | Group) -> Group:
    """Return a group, without options if only its name is given."""
    return group if isinstance(group, Group) else Group(group)


def delays_of(text: str) -> list[float]:
    """Return the delays of a RetryPolicy that were written as ``5,300,1800``, or ``none``.

    Raises:
        ValueError: they are not numbers.
    """
    return [] if text == "none" else [float(each) for each in text.split(",")]


def with_retry_policy(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their stored names as ``Admin.configure`` takes them."""
    policy = {RETRY[name]: value for name, value in settings.items() if name in RETRY}
    others = {name: value for name, value in settings.items() if name not in RETRY}
    return {**others, "retry": RetryPolicy(**policy)} if policy else others


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return options to change as the database stores them; None removes a limit.

    Raises:
        InvalidArgument: there is no such option, or its value is invalid.
    """
    for name in settings:
        if name not in GroupSettings.__annotations__:
            raise unknown_option("a group", name, GroupSettings.__annotations__, CALLED)
        if settings[name] is None and name not in LIMITS:
            raise InvalidArgument(f"{name} must not be None: leave it out to keep it")
    lifted = {name: None for name in LIMITS if name in settings and settings[name] is None}
    return {**Group("any", **settings).stored, **lifted}
