"""What this library costs, beside the same done without it: ``durable-notify bench``.

Each measurement has a PostgreSQL of its own with fsync and synchronous_commit on, takes turns with
what it is compared with, and keeps every round.
"""

from __future__ import annotations

from collections.abc import Callable

from . import consuming, publishing, waking
from .harness import Figure, Report

__all__ = ["MEASUREMENTS", "Figure", "Report"]

#: By name: the measurement, and its arguments for seeing that it runs.
MEASUREMENTS: dict[str, tuple[Callable[..., Report], dict[str, object]]] = {
    "publishing": (publishing.measure, {"clients": (1, 8), "rounds": 1, "seconds": 1}),
    "bulk": (publishing.measure_bulk, {"rounds": 3, "rows": 1_000}),
    "waking": (waking.measure, {"rounds": 1, "messages": 30}),
    "consuming": (consuming.measure, {"messages": 5_000, "rounds": 2}),
}
