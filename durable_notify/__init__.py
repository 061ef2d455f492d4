"""durable_notify: LISTEN/NOTIFY that loses nothing.

Messages are rows of an outbox table, published inside your own transaction; NOTIFY only wakes the
consumers, which read, acknowledge and replay from the table.

Here is what most programs need. The rest has modules of its own: ``errors``, ``models`` (what
methods return), ``events``, ``middleware``, ``codecs``, ``archive``, ``bridge``, ``schema``.
"""

from typing import TYPE_CHECKING

from . import errors, models
from ._async.admin.admin import AsyncAdmin
from ._async.consumer.consumer import AsyncConsumer
from ._async.consumer.message import AsyncMessage
from ._async.consumer.several import run_async
from ._async.maintenance import AsyncMaintenance
from ._async.publisher import AsyncPublisher
from ._async.reader import AsyncReader
from ._async.scheduler import AsyncScheduler
from ._async.webhooks import AsyncWebhooks
from ._core.leases import Ack, Reject, Retry
from ._sync.admin.admin import Admin
from ._sync.consumer.consumer import Consumer
from ._sync.consumer.message import Message
from ._sync.consumer.several import run
from ._sync.maintenance import Maintenance
from ._sync.publisher import Publisher
from ._sync.reader import Reader
from ._sync.scheduler import Scheduler
from ._sync.webhooks import Webhooks
from ._version import __version__
from .errors import DurableNotifyError, InvalidArgument, LeaseLost
from .groups import Group, RetryPolicy
from .middleware import Middleware
from .payloads import NewMessage
from .schedules import Schedule
from .topics import Topic

__all__ = [
    "Ack",
    "Admin",
    "AsyncAdmin",
    "AsyncConsumer",
    "AsyncMaintenance",
    "AsyncMessage",
    "AsyncPublisher",
    "AsyncReader",
    "AsyncScheduler",
    "AsyncWebhooks",
    "Consumer",
    "DurableNotifyError",
    "Group",
    "InvalidArgument",
    "LeaseLost",
    "Maintenance",
    "Message",
    "Middleware",
    "NewMessage",
    "Publisher",
    "Reader",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Schedule",
    "Scheduler",
    "Topic",
    "Webhooks",
    "__version__",
    "errors",
    "models",
    "run",
    "run_async",
]

if not TYPE_CHECKING:  # so that type checkers know that the other names have left
    from .deprecated import moved as __getattr__  # noqa: F401
