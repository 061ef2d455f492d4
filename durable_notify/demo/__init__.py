"""``durable-notify demo``: messages survive faults that lose them with plain LISTEN/NOTIFY.

Every figure is counted from what was sent and what arrived.
"""

from .scenario import run

__all__ = ["run"]
