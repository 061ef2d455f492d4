"""Capture: publish the notifications of a channel to a topic.

Capture(dsn, channel="orders_changed", topic="orders").run()
"""

from .._async.capture import AsyncCapture
from .._core.capture_buffer import not_promised
from .._sync.capture import Capture

__all__ = ["AsyncCapture", "Capture", "not_promised"]
