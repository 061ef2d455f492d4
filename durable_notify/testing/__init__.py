"""Test your own code: what it publishes, and what its handlers do.

Functions with ``_async`` in their names take connections and consumers of asyncio. The pytest
plugin, ``pytest_durable_notify``, has fixtures for databases. See ``docs/testing.md``.
"""

from durable_notify._async.testing import AsyncRecordedMessage
from durable_notify._async.testing import assert_not_published as assert_not_published_async
from durable_notify._async.testing import assert_published as assert_published_async
from durable_notify._async.testing import drain as drain_async
from durable_notify._async.testing import message as message_async
from durable_notify._async.testing import published as published_async
from durable_notify._async.testing import reset as reset_async
from durable_notify._async.testing import travel as travel_async
from durable_notify._core.testing import Drained, PublishedMessage
from durable_notify._sync.testing import (
    RecordedMessage,
    assert_not_published,
    assert_published,
    drain,
    message,
    published,
    reset,
    travel,
)

__all__ = [
    "AsyncRecordedMessage",
    "Drained",
    "PublishedMessage",
    "RecordedMessage",
    "assert_not_published",
    "assert_not_published_async",
    "assert_published",
    "assert_published_async",
    "drain",
    "drain_async",
    "message",
    "message_async",
    "published",
    "published_async",
    "reset",
    "reset_async",
    "travel",
    "travel_async",
]
