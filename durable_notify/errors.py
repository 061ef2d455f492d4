"""The errors this library raises itself, as one tree.

Errors of the database driver are not wrapped: a refused connection, a missing privilege or a
serialization failure reaches you as the exception of your driver, or of Django.

    DurableNotifyError
    ├── InvalidArgument (ValueError)      a name, option or argument that cannot work
    │   └── PayloadError                  a payload or header that is not JSON, or not of its type
    │       └── PayloadTooLarge           a payload over the size PostgreSQL can hold
    ├── UnsupportedConnection (TypeError) publish() was given something it cannot publish through
    ├── SchemaError                       the database half does not fit this package
    │   ├── SchemaMissing                 the migrations have not been run
    │   ├── SchemaTooOld                  the database is behind this package
    │   ├── SchemaTooNew                  this package is behind the database
    │   ├── EncodingUnsupported           the database's encoding does not say what its bytes mean
    │   └── ForeignCluster                the messages came from another cluster
    ├── UnknownGroup (LookupError)        no such consumer group
    ├── UnknownTopic (LookupError)        the group has no such topic
    ├── MessageNotFound (LookupError)     a message is no longer in the outbox
    ├── SettleError                       an acknowledgement, retry or rejection was refused
    │   ├── LeaseLost                     the lease was superseded: another consumer has the message
    │   ├── AlreadySettled                this message was settled before
    │   └── OutOfOrder                    an earlier message of its key is not settled yet
    ├── ClaimBusy                         other claims of the group held its lock for too long
    ├── ClaimRefused                      claim() would lose or repeat messages in this transaction
    ├── ConsumerClosed                    the consumer was closed; its leases were released
    ├── UsedAfterFork                     an object with connections was used after a fork
    ├── HandlerTimeout (TimeoutError)     a handler took longer than ``handler_timeout``
    ├── NoHandler (LookupError)           a consumer has no handler for a message's topic
    ├── WorkNotDone                       a handler returned a coroutine or generator, not run
    ├── BrokerUnavailable                 a broker cannot be reached, or does not answer
    ├── CaptureIncomplete                 a capture could not publish all it had heard
    ├── ListenUnavailable                 wake-ups do not arrive and polling is switched off
    └── EmbeddedError                     the embedded PostgreSQL cannot be started or used
"""

from __future__ import annotations

__all__ = [
    "AlreadySettled",
    "BrokerUnavailable",
    "CaptureIncomplete",
    "ClaimBusy",
    "ClaimRefused",
    "ConsumerClosed",
    "DurableNotifyError",
    "EmbeddedError",
    "EncodingUnsupported",
    "ForeignCluster",
    "HandlerTimeout",
    "InvalidArgument",
    "LeaseLost",
    "ListenUnavailable",
    "MessageNotFound",
    "NoHandler",
    "OutOfOrder",
    "PayloadError",
    "PayloadTooLarge",
    "SchemaError",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "SettleError",
    "UnknownGroup",
    "UnknownTopic",
    "UnsupportedConnection",
    "UsedAfterFork",
    "WorkNotDone",
]


class DurableNotifyError(Exception):
    """Base of every error this library raises itself."""


class InvalidArgument(DurableNotifyError, ValueError):
    """A name, option or argument cannot work. Nothing was written."""


class PayloadError(InvalidArgument):
    """The payload or its headers cannot be stored as JSON, or are not of the topic's type.

    Nothing was written. A received message of another type becomes a dead letter with this error.
    """


class PayloadTooLarge(PayloadError):
    """The payload is larger than PostgreSQL can hold. Publish a reference to it."""


class UnsupportedConnection(DurableNotifyError, TypeError):
    """Publish through a connection of psycopg, psycopg2, asyncpg, Django or SQLAlchemy.

    Those for asyncio are for the classes named ``Async``, the others for those that are not.
    """


class SchemaError(DurableNotifyError):
    """The schema ``durable_notify`` in the database does not fit this package."""


class SchemaMissing(SchemaError):
    """The database has no durable_notify schema. Run ``durable-notify migrate``."""


class SchemaTooOld(SchemaError):
    """The database is behind this package. Run ``durable-notify migrate``."""


class SchemaTooNew(SchemaError):
    """This package is behind the database. Upgrade ``durable-notify``."""


class EncodingUnsupported(SchemaError):
    """The encoding of the database, SQL_ASCII, does not say what its bytes mean.

    Use any other that PostgreSQL can convert to UTF-8.
    """


class ForeignCluster(SchemaError):
    """The messages were restored from, or replicated by, another cluster.

    Nothing is lost. Once everything has been copied, run ``durable-notify reanchor``: every group
    then continues with exactly what had not been delivered to it.

    A TRUNCATE of all tables also raises this, because it empties the table that identifies the
    cluster. In tests, call ``testing.reset()`` afterwards.
    """


class UnknownGroup(DurableNotifyError, LookupError):
    """No consumer group has this name. ``durable-notify status`` lists them."""


class UnknownTopic(DurableNotifyError, LookupError):
    """The group does not consume this topic. ``durable-notify status`` lists what it consumes."""


class MessageNotFound(DurableNotifyError, LookupError):
    """A message is no longer in the outbox. Publish it again: its dead letter has all of it."""


class SettleError(DurableNotifyError):
    """An acknowledgement, retry or rejection was refused. The database has not changed."""


class LeaseLost(SettleError):
    """The lease was superseded: another consumer has, or had, the message.

    Roll back what the handler did in its transaction: the other consumer does the work. If handlers
    are regularly paused for longer, raise the consumer's ``lease``.
    """


class AlreadySettled(SettleError):
    """This message was already acknowledged, retried or rejected under this lease."""


class OutOfOrder(SettleError):
    """An earlier message of the same key is not settled yet, and this group keeps order.

    Settle messages of one key in their order, or retry the earlier one. A transaction that has
    acknowledged the earlier one must have committed.
    """


class BrokerUnavailable(DurableNotifyError):
    """The broker cannot be reached, or does not answer. Check its URL, and that it runs.

    Nothing was claimed or taken. Once started, relays and ingests wait for their broker.
    """


class CaptureIncomplete(DurableNotifyError):
    """A capture was stopped before it could publish everything it had heard."""


class ClaimBusy(DurableNotifyError):
    """Other claims of the group held its lock for too long. Busy is not empty: try again."""


class ClaimRefused(DurableNotifyError):
    """A claim must be the first and only statement of a READ COMMITTED transaction."""


class ConsumerClosed(DurableNotifyError):
    """The consumer was closed and has released its leases. Its messages are redelivered."""


class UsedAfterFork(DurableNotifyError):
    """The object was made before this process was forked. Make a new one here.

    Its threads are not in this process, and its connections belong to the other one.
    """


class HandlerTimeout(DurableNotifyError, TimeoutError):
    """A handler took longer than the consumer's ``handler_timeout``. Its message is redelivered."""


class NoHandler(DurableNotifyError, LookupError):
    """The consumer has no handler for the message's topic. The message is redelivered.

    It matches a pattern among the consumer's ``topics``. Add a handler with ``on()``, or leave
    ``topics`` out: then they are those of the handlers.
    """


class WorkNotDone(DurableNotifyError):
    """A handler returned a coroutine or generator, and did no work. Its message is redelivered.

    Pass an ``async`` handler to an ``AsyncConsumer``, and do not ``yield`` in a handler.
    """


class ListenUnavailable(DurableNotifyError):
    """Wake-ups do not reach the listening connection and polling is off.

    A pooler in transaction mode does this. Set a direct ``listen_dsn``, or allow ``poll_interval``.
    """


class EmbeddedError(DurableNotifyError):
    """The embedded PostgreSQL cannot be started or used."""
