"""The objects that reading and administration return."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict

from .codecs import T
from .errors import PayloadError
from .payloads import readable

if TYPE_CHECKING:
    from .payloads import Decoder

__all__ = [
    "AccessGrant", "AuditEntry", "BlockedKey", "BridgeInfo", "DeadLetter", "DeadLetterFilter",
    "Erasure", "GroupInfo", "Health", "LostMessages", "OpenPublisher", "OperatorEvents",
    "PendingRetry", "ReadMessage", "ReanchorResult", "ReplayFilter", "ReplayJob", "Retention",
    "RetentionBlocker", "RetryCount", "RetryFilter", "SeekResult", "TopicStatus", "TopicStorage",
]  # fmt: skip

ConsumerState = Literal["new", "fetching", "full", "sleeping", "polling", "stopping"]


class ReplayFilter(TypedDict, total=False):
    """Selects messages to replay: those that match all conditions.

    Attributes:
        after: with a higher id.
        upto: with this id or a lower one.
        since: published at or after that time; aware.
        until: published before that time; aware.
        keys: with this key, or one of these.
        headers: whose headers contain these (``@>`` of jsonb).
        payload: whose payload contains this (``@>`` of jsonb).
        path: whose payload matches this SQL/JSON path.
    """

    after: int | None
    upto: int | None
    since: datetime | None
    until: datetime | None
    keys: str | Iterable[str] | None
    headers: Mapping[str, Any] | None
    payload: Any
    path: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class ReplayJob:
    """A replay: ``done`` of ``total`` messages are sent back; state running, done, cancelled."""

    id: int
    group: str
    topic: str
    state: str
    total: int
    done: int
    last_id: int
    rate_limit: float | None
    created_at: datetime
    created_by: str
    why: str | None
    ended_at: datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    """The retention policy of a pattern's topics; ages in seconds.

    With no limit, neither ``when_settled`` nor ``compact``, it keeps everything.
    """

    pattern: str
    max_age: float | None
    max_bytes: int | None
    when_settled: bool
    on_lag: str
    alarm_bytes: int | None
    compact: bool
    archive: bool
    set_at: datetime
    set_by: str
    min_age: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class TopicStorage:
    """What a topic takes, from a sample.

    Attributes:
        topic: its name.
        groups: how many groups read it.
        messages: about how many messages it has.
        bytes: about how much it takes, indexes included; 0 if the sample missed a small topic.
        oldest: when its oldest message was published.
        pattern: the retention policy that applies; None: there is none.
    """

    topic: str
    groups: int
    messages: int
    bytes: int
    oldest: datetime
    pattern: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class RetentionBlocker:
    """Expired messages that a group has not settled; ``group`` None: they are not archived yet."""

    topic: str
    group: str | None
    from_id: int
    upto_id: int
    published_at: datetime
    bytes: int | None
    alarm: bool


@dataclasses.dataclass(frozen=True, slots=True)
class LostMessages:
    """Messages that a group lost to retention: between two ids, how many, and by which limit."""

    id: int
    at: datetime
    group: str
    topic: str
    first_id: int
    last_id: int
    messages: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReanchorResult:
    """A topic of a group after a move to another cluster; ``unread``: messages not delivered."""

    group: str
    topic: str
    unread: int


@dataclasses.dataclass(frozen=True, slots=True)
class SeekResult:
    """The effect of a seek: how many messages are redelivered, and how many skipped."""

    redelivered: int
    skipped: int


class DeadLetterFilter(TypedDict, total=False):
    """Selects dead letters: those that match all conditions.

    Attributes:
        topic: of this topic.
        ids: with one of these ids, or this one.
        key: with this key.
        error_type: whose last exception was of this type, as in ``error["type"]``.
        since: dead from then on; aware.
        until: dead before then; aware.
    """

    topic: str | None
    ids: int | Iterable[int] | None
    key: str | None
    error_type: str | None
    since: datetime | None
    until: datetime | None


class RetryFilter(DeadLetterFilter, total=False):
    """Selects messages that wait for their next attempt: those that match all conditions.

    The conditions are those of ``DeadLetterFilter``, but ``since`` and ``until`` are about the time
    at which a message was published.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Erasure:
    """The effect of an erasure: ``removed`` by place; ``counted``: what may still have some."""

    removed: Mapping[str, int]
    counted: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class OperatorEvents:
    """A kind of operator events that is published, of a group or of all (None)."""

    kind: str
    group: str | None
    set_at: datetime
    set_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class AccessGrant:
    """A grant of a role: ``action``, on the topics of a pattern, in a group."""

    role: str
    action: str
    pattern: str | None
    group: str | None
    granted_at: datetime
    granted_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class AuditEntry:
    """A recorded change of a group: ``who`` logged in, ``acting_as`` which role, when and why."""

    id: int
    at: datetime
    who: str
    acting_as: str
    application: str | None
    action: str
    group: str
    topic: str | None
    messages: int | None
    why: str | None
    details: Any


@dataclasses.dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group and its options; times in seconds. See ``GroupSettings`` for what each does.

    ``active`` is the active consumer of an exclusive group. It stays active until ``active_until``,
    which each sign of life extends.
    """

    name: str
    order_by: str
    exclusive: bool
    max_attempts: int
    retry_base: float
    retry_factor: float
    retry_max: float
    retry_delays: list[float]
    on_expiry: str
    park_limit: int
    max_in_flight: int | None
    rate_limit: float | None
    paused_at: datetime | None
    created_at: datetime
    topics: list[str]
    patterns: list[str]
    active: str | None
    active_until: datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class OpenPublisher:
    """An open transaction that publishes: of a session, or a prepared one.

    ``state`` and ``query`` of another role's session are None without ``pg_read_all_stats``.
    """

    pid: int | None
    database: str
    prepared: str | None
    started_at: datetime | None
    query_started_at: datetime | None
    state: str | None
    query: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class BridgeInfo:
    """A ``mirror`` (topic to channel), ``capture`` (channel to topic), ``watch`` or ``compat``.

    For a watch, ``columns`` are those selected, None: all; ``with_old``: updates have old values.
    """

    kind: str
    source: str
    target: str
    columns: list[str] | None
    with_old: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """The health of a consumer.

    Attributes:
        live: its loops run. If not, restart it.
        ready: it was started, its claims work, and it will notice new messages.
        why: why it is not live or not ready, for people.
        group: its group.
        held: how many messages it holds.
        hears: whether a check found that wake-ups arrive; otherwise it polls.
        silent: how many seconds ago its last sign of life was; None: it has not started.
        state: what it does: ``new``, ``fetching``, ``full`` (it holds as much as it may),
            ``sleeping`` (nothing is left, and the next message wakes it), ``polling`` (nothing is
            left, and it polls after a while) or ``stopping``.
    """

    live: bool
    ready: bool
    why: tuple[str, ...]
    group: str
    held: int
    hears: bool
    silent: float | None
    state: ConsumerState


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class ReadMessage(Generic[T]):
    """A message of a reader; there is nothing to acknowledge."""

    id: int
    topic: str
    key: str | None
    _payload: T | PayloadError
    headers: Mapping[str, Any]
    published_at: datetime
    _token: Callable[[], str]

    @classmethod
    def of(
        cls, topic: str, row: tuple[Any, ...], token: Callable[[], str], decoder: Decoder
    ) -> ReadMessage[Any]:
        """Make a message of a row of the outbox: id, key, payload, data, headers, created_at."""
        message_id, key, text, data, headers, published_at = row
        payload: Any
        try:
            payload = decoder.of(topic)(text, data)
        except PayloadError as error:
            payload = error
        except (ValueError, RecursionError):
            payload = text
        kept = {} if headers is None else readable(headers)
        return cls(message_id, topic, key, payload, kept, published_at, token)

    @property
    def payload(self) -> T:
        """The payload; text if Python cannot decode it.

        Raises:
            PayloadError: it is not of its topic's type. The reader can continue after it.
        """
        if isinstance(self._payload, PayloadError):
            raise self._payload
        return self._payload

    @property
    def token(self) -> str:
        """Where to start a reader that continues right after this message."""
        return self._token()

    def __repr__(self) -> str:
        # No payload or headers: they do not belong in logs.
        return f"<{type(self).__name__} {self.id} of {self.topic!r}>"


@dataclasses.dataclass(frozen=True, slots=True)
class TopicStatus:
    """The lag of a group in a topic; if no group reads it, only its last id and sleepers are known.

    Attributes:
        topic: its name.
        group: its name.
        last_id: the topic's highest id.
        unread: committed and never delivered; estimated unless ``is_exact``.
        oldest_unread: when the oldest of those was published.
        deferred: messages that wait for another attempt; counted up to ``max_count``.
        leases: batches that consumers hold now.
        leased: messages in them.
        dead: dead letters; counted up to ``max_count``.
        is_exact: whether ``unread`` was counted.
        delivered_id: the highest id delivered to the group.
        expired: how many messages were not delivered because they were past their expiry.
        asleep: sessions, of any group, that wait for the topic's doorbell.
        retrying: of the deferred, those that failed and wait for their next attempt.
        parked: of the deferred, those that wait for an earlier message of their key.
        oldest_unsettled: since when the oldest message waits that the group has not settled:
            unread, leased, retrying or parked.
    """

    topic: str
    group: str | None
    last_id: int
    unread: int | None
    oldest_unread: datetime | None
    deferred: int | None
    leases: int | None
    leased: int | None
    dead: int | None
    is_exact: bool | None
    delivered_id: int | None
    expired: int | None
    asleep: int
    retrying: int | None = None
    parked: int | None = None
    oldest_unsettled: datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that a group has given up: rejected, or failed too often.

    ``error``: ``type``, ``message`` and ``traceback`` of the last exception, if there was one.
    """

    group: str
    topic: str
    id: int
    key: str | None = dataclasses.field(repr=False)
    payload: Any = dataclasses.field(repr=False)
    headers: Mapping[str, Any] = dataclasses.field(repr=False)
    published_at: datetime
    attempt: int
    reason: str = dataclasses.field(repr=False)
    dead_at: datetime
    error: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class PendingRetry:
    """A message that failed in a group and waits for its next attempt.

    ``attempt``: how many attempts there were, of ``max_attempts``. ``due_at``: when the next one
    is due. ``error``: ``type``, ``message`` and ``traceback`` of the last exception; None if the
    handler gave none.
    """

    group: str
    topic: str
    id: int
    key: str | None = dataclasses.field(repr=False)
    payload: Any = dataclasses.field(repr=False)
    headers: Mapping[str, Any] = dataclasses.field(repr=False)
    published_at: datetime
    attempt: int
    max_attempts: int
    due_at: datetime
    error: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class RetryCount:
    """How many messages of a group and topic wait for a retry after one type of error.

    ``max_attempt``: the most attempts that one of them had. ``next_due`` and ``last_due``: when the
    first and the last is due. ``example``: what one of the errors says.
    """

    group: str
    topic: str
    error_type: str | None
    messages: int
    max_attempt: int
    next_due: datetime
    last_due: datetime
    example: str | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key of which messages wait for an earlier message.

    Attributes:
        group: its name.
        topic: its name.
        key: the key; empty for all messages of a strict group.
        waiting: how many messages wait, counted up to 10,000.
        since: since when the first of them waits.
        message_id: what they wait for.
        state: ``leased``: ``owner`` holds it; ``retry``: it failed, and waits for its next attempt;
            ``ready``: it waits for a claim.
        owner: who holds it.
        until: the deadline of the lease, or when the retry is due.
        attempt: how many attempts it had before.
        error: ``type``, ``message`` and ``traceback`` of its last exception.
    """

    group: str
    topic: str
    key: str = dataclasses.field(repr=False)
    waiting: int
    since: datetime
    message_id: int
    state: str
    owner: str | None
    until: datetime | None
    attempt: int
    error: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
