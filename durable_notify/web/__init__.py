"""The dashboard: topics, groups, messages and what is wrong, in a browser.

It needs ``pip install "durable-notify[web]"``. Run ``durable-notify web``, or mount it::

    app.mount("/queue", dashboard(dsn, authorize=lambda request: Access("me")))
"""

from .access import ACTIONS, Access
from .app import dashboard

__all__ = ["ACTIONS", "Access", "dashboard"]
