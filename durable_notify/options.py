"""The options of a consumer, checked."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypedDict

from ._core.callables import is_async, left_undone
from ._core.checks import check_count, unknown_option
from ._core.leases import Ack, Outcome, Reject, Retry
from ._core.sanitize import describe, text_of, to_storable
from .durations import Seconds, in_seconds
from .errors import InvalidArgument
from .events import OnEvent, subscribers
from .groups import CALLED, Group, GroupSettings, as_group
from .middleware import Middleware
from .topics import check_pattern, listed

__all__ = ["ConsumerOptions", "ConsumerSettings", "ErrorRules", "check_on_event"]

#: The outcome of a message whose handler raised: by type of exception, the first that matches; or a
#: function of the exception and the message. None: retried by the group's backoff.
ErrorRules = Mapping[type[BaseException], Outcome] | Callable[[BaseException, Any], Outcome | None]


class ConsumerSettings(TypedDict, total=False):
    """Options of a consumer besides its group and topics; see ``ConsumerOptions``."""

    lease: Seconds
    batch_size: int
    prefetch: int
    prefetch_bytes: int | None
    poll_interval: Seconds | None
    idle_poll_interval: Seconds | None
    heartbeat_interval: Seconds
    handler_timeout: Seconds | None
    until_empty: bool
    owner: str
    concurrency: int
    middleware: Sequence[Middleware]
    on_error: ErrorRules
    on_event: OnEvent | Sequence[OnEvent] | None
    maintenance: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """The options of a consumer. Times are in seconds.

    Args:
        group: the consumer group, with the options that are stored for all its consumers.
        topics: the topics to consume; new ones are added to the group. If there are none, those
            that have handlers by ``on``. A topic may be a pattern of words between dots: ``*``
            stands for one word, a last ``>`` for one or more. The group discovers new topics that
            match.
        lease: how long this consumer keeps a batch after its last sign of life.
        batch_size: the most messages in one claim.
        prefetch: the most messages held unsettled, including buffered ones.
        prefetch_bytes: about how large their payloads may be together; None: no limit.
        poll_interval: how often to poll without a wake-up, as a safety net; None switches polling
            off.
        idle_poll_interval: replaces ``poll_interval`` for a database that is suspended while idle.
            A consumer that waits for messages sends the database nothing until a wake-up, or until
            this time is over. It does not reopen lost connections either.
        heartbeat_interval: how often to check that connections are alive. A dead one is found and
            replaced within two heartbeats; a statement without an answer within two is given up.
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
    """

    group: Group
    topics: tuple[str, ...] = ()
    lease: float = 30.0
    batch_size: int = 500
    prefetch: int = 2000
    prefetch_bytes: int | None = None
    poll_interval: float | None = 30.0
    idle_poll_interval: float | None = None
    heartbeat_interval: float = 15.0
    handler_timeout: float | None = None
    until_empty: bool = False
    owner: str = dataclasses.field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    concurrency: int = 1
    middleware: Sequence[Middleware] = ()
    on_error: ErrorRules = dataclasses.field(default_factory=dict)
    on_event: OnEvent | Sequence[OnEvent] | None = None
    maintenance: bool = True

    def __post_init__(self) -> None:
        names = dict.fromkeys(map(check_pattern, listed(self.topics)))
        object.__setattr__(self, "topics", tuple(names))
        if not isinstance(self.owner, str) or self.owner != to_storable(self.owner):
            raise InvalidArgument(
                f"owner must be a str without NUL and lone surrogates, not {self.owner!r}"
            )
        object.__setattr__(self, "owner", str.__str__(self.owner))
        for name in ("lease", "heartbeat_interval"):
            object.__setattr__(self, name, in_seconds(name, getattr(self, name)))
        for name in ("poll_interval", "idle_poll_interval", "handler_timeout"):
            seconds = in_seconds(name, getattr(self, name), optional=True)
            object.__setattr__(self, name, seconds)
        check_count("batch_size", self.batch_size, 10_000)
        check_count("prefetch", self.prefetch, 1_000_000)
        check_count("concurrency", self.concurrency)
        if self.prefetch_bytes is not None:
            check_count("prefetch_bytes", self.prefetch_bytes, 2**50)
        _check_rules(self.on_error)
        check_on_event(self.on_event)
        if not isinstance(self.maintenance, bool):
            raise InvalidArgument(f"maintenance must be True or False, not {self.maintenance!r}")

    @classmethod
    def of(cls, group: str | Group, topics: Iterable[str], options: Mapping[str, Any]) -> Self:
        """Return the options that a user gave.

        Raises:
            InvalidArgument: there is no such option, or its value is invalid.
        """
        for name in options:
            if name not in ConsumerSettings.__annotations__:
                raise unknown_option("a consumer", name, ConsumerSettings.__annotations__, _CALLED)
        return cls(as_group(group), tuple(topics), **options)

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


#: What to write for other libraries' names of some of the options.
_CALLED = {
    **{n: f"group=dn.Group(..., {n}=...)" for n in ("start", *GroupSettings.__annotations__)},
    **{name: f"group=dn.Group(..., {meant})" for name, meant in CALLED.items()},
    "visibility_timeout": "lease", "lock_timeout": "lease", "ack_wait": "lease", "vt": "lease",
    "prefetch_count": "prefetch", "polling_interval": "poll_interval",
    "auto_offset_reset": "group=dn.Group(..., start=...)", "timeout": "handler_timeout",
    "workers": "concurrency", "max_workers": "concurrency", "handler": "run(handler)",
}  # fmt: skip


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
