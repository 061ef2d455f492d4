"""What programs that the tests start need to find the checkout."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def checkout_environment(**more: str) -> dict[str, str]:
    """Ours, with this checkout before whatever else is on Python's path."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more
