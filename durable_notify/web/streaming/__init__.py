"""Streams of messages to browsers: Server-Sent Events, WebSocket and long polling."""

from .access import StreamAccess
from .app import streams

__all__ = ["StreamAccess", "streams"]
