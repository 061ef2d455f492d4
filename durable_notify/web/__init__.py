"""The dashboard, and streams of messages to browsers.

It needs ``pip install "durable-notify[web]"``. Run ``durable-notify web``, or mount it:

    app.mount("/queue", dashboard(dsn, authorize=lambda request: Access("me")))
    app.mount("/streams", streams(dsn, authorize=lambda request: StreamAccess(("prices",))))
"""

from .access import ACTIONS, Access
from .app import dashboard
from .streaming import StreamAccess, streams

__all__ = ["ACTIONS", "Access", "StreamAccess", "dashboard", "streams"]
