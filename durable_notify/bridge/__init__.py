"""Bridges in and out: programs that only LISTEN and NOTIFY, adopted."""

from .._async.bridge import AsyncBridge
from .._sync.bridge import Bridge

__all__ = ["AsyncBridge", "Bridge"]
