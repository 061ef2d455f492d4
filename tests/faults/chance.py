"""What a random run chooses, unless the environment gives it: its seed, and how long it lasts."""

from __future__ import annotations

import os
import random

SEED = os.environ.get("DURABLE_NOTIFY_SEED") or str(random.SystemRandom().randrange(10**9))


def seconds(usual: float) -> float:
    """Return how long a run lasts."""
    return float(os.environ.get("DURABLE_NOTIFY_SECONDS", usual))
