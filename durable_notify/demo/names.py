"""Names shared by the demo and its consumer, which is a process of its own."""

from __future__ import annotations

__all__ = ["GROUP", "LEASE", "TOPIC", "UNACKNOWLEDGED"]

GROUP = "demo"
TOPIC = "demo.events"
LEASE = 2.0
#: How many messages the consumer has handled and not acknowledged when it is killed.
UNACKNOWLEDGED = 3
