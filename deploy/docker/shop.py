"""The handler of the example: prints what it gets."""

from __future__ import annotations

from typing import Any


def handle(message: Any) -> None:
    """Handle a message; what it raises has the message come again."""
    print(message.id, message.topic, message.payload, flush=True)
