"""What happens to groups, as messages: the topics of operator events, and their payloads.

``Admin.set_operator_events`` switches a kind on. A payload names groups, topics and ids, and
nothing of a message's content. The types need ``pip install "durable-notify[pydantic]"``.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from .topics import Topic

__all__ = [
    "ALL", "DeadLettered", "GroupFailing", "Loss", "RetentionAlarm", "dead_letter",
    "group_failing", "loss", "retention_alarm",
]  # fmt: skip

#: The pattern of all operator events.
ALL = "durable_notify.>"


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLettered:
    """A group has given up a message. ``more``: further ones are not announced for a minute."""

    group: str
    topic: str
    id: int
    attempts: int
    reason: Literal["attempts", "rejected", "expired", "dropped"]
    error_type: str | None = None
    more: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """A group has lost unsettled messages to retention; ``reason`` is the limit of the policy."""

    group: str
    topic: str
    first_id: int
    last_id: int
    messages: int
    reason: str
    more: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class GroupFailing:
    """Messages of a group have begun to fail again and again, or no message does so any more.

    ``attempts``: of the one that has failed most often; ``held``: how many of the messages a
    consumer has held for an hour, such as a relay whose endpoint is down. ``webhook``: the endpoint
    of the group has failed for 5 minutes, whatever the topic, which is None.
    """

    group: str
    topic: str | None
    state: Literal["began", "ended"]
    messages: int | None = None
    attempts: int | None = None
    held: int | None = None
    webhook: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RetentionAlarm:
    """A group that lags, or the archive (no group), keeps more of a topic than its alarm allows."""

    group: str | None
    topic: str
    state: Literal["began", "ended"]
    bytes: int | None = None


dead_letter = Topic("durable_notify.dead_letter", DeadLettered)
loss = Topic("durable_notify.loss", Loss)
group_failing = Topic("durable_notify.group_failing", GroupFailing)
retention_alarm = Topic("durable_notify.retention_alarm", RetentionAlarm)
