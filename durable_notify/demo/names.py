"""What the demo and its consumer, in a process of its own, agree on."""

from __future__ import annotations

__all__ = ["GROUP", "LEASE", "TOPIC", "UNACKNOWLEDGED"]

GROUP = "demo"
TOPIC = "demo.events"
LEASE = 2.0
#: How many messages it has handled and not acknowledged when it is killed.
UNACKNOWLEDGED = 3
