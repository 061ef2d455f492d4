"""The handler of the example: prints its messages."""

from __future__ import annotations

from typing import Any


def handle(message: Any) -> None:
    """Handle a message; if it raises, the message is redelivered."""
    print(message.id, message.topic, message.payload, flush=True)
