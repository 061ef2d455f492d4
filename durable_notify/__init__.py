"""durable_notify: LISTEN/NOTIFY that loses nothing.

Messages are rows of an outbox table, published inside your own transaction; NOTIFY only wakes the
consumers, which read, acknowledge and replay from the table.
"""

from ._async.admin import AsyncAdmin
from ._async.bridge import AsyncBridge
from ._async.consumer.consumer import AsyncConsumer
from ._async.consumer.message import AsyncMessage
from ._async.consumer.several import run_async
from ._async.maintenance import AsyncMaintenance
from ._async.publisher import AsyncPublisher
from ._async.reader import AsyncReader
from ._core.leases import Ack, Reject, Retry
from ._core.tracing import context_of
from ._sync.admin import Admin
from ._sync.bridge import Bridge
from ._sync.consumer.consumer import Consumer
from ._sync.consumer.message import Message
from ._sync.consumer.several import run
from ._sync.maintenance import Maintenance
from ._sync.publisher import Publisher
from ._sync.reader import Reader
from ._version import __version__
from .archive import Archive, ArchivedMessage, NdjsonFiles, ParquetFiles
from .codecs import Codec, JsonCodec
from .errors import *  # noqa: F403 - its __all__ is the error tree
from .errors import __all__ as _errors
from .middleware import Handling, Middleware, Publishing
from .models import (
    AccessGrant,
    AuditEntry,
    BlockedKey,
    BridgeInfo,
    DeadLetter,
    DeadLetterFilter,
    GroupInfo,
    Health,
    LostMessages,
    OpenPublisher,
    PendingRetry,
    ReadMessage,
    ReplayFilter,
    ReplayJob,
    Retention,
    RetentionBlocker,
    RetryCount,
    RetryFilter,
    SeekResult,
    TopicStatus,
)
from .options import ConsumerOptions, GroupSettings
from .payloads import NewMessage
from .topics import Topic, channel

__all__ = [
    "AccessGrant",
    "Ack",
    "Admin",
    "Archive",
    "ArchivedMessage",
    "AsyncAdmin",
    "AsyncBridge",
    "AsyncConsumer",
    "AsyncMaintenance",
    "AsyncMessage",
    "AsyncPublisher",
    "AsyncReader",
    "AuditEntry",
    "BlockedKey",
    "Bridge",
    "Codec",
    "BridgeInfo",
    "Consumer",
    "ConsumerOptions",
    "DeadLetter",
    "DeadLetterFilter",
    "GroupInfo",
    "GroupSettings",
    "Handling",
    "Health",
    "JsonCodec",
    "LostMessages",
    "Maintenance",
    "Message",
    "Middleware",
    "NdjsonFiles",
    "NewMessage",
    "OpenPublisher",
    "PendingRetry",
    "ParquetFiles",
    "Publisher",
    "Publishing",
    "ReadMessage",
    "Reader",
    "Reject",
    "ReplayFilter",
    "ReplayJob",
    "Retention",
    "RetentionBlocker",
    "RetryCount",
    "RetryFilter",
    "Retry",
    "SeekResult",
    "Topic",
    "TopicStatus",
    "__version__",
    "channel",
    "context_of",
    "run",
    "run_async",
    *_errors,
]
