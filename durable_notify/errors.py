"""The errors this library raises itself, as one tree.

Errors of the database driver are not wrapped: a refused connection, a missing privilege or a
serialization failure reaches you as the ``psycopg`` exception it is.

::

    DurableNotifyError
    ├── InvalidArgument (ValueError)      a name, option or argument that cannot work
    │   └── PayloadError                  a payload or header that PostgreSQL cannot store as JSON
    │       └── PayloadTooLarge           a payload over the size PostgreSQL can hold
    ├── UnsupportedConnection (TypeError) publish() was given something it cannot publish through
    ├── SchemaError                       the database half does not fit this package
    │   ├── SchemaMissing                 the migrations have not been run
    │   ├── SchemaTooOld                  the database is behind this package
    │   ├── SchemaTooNew                  this package is behind the database
    │   ├── EncodingUnsupported           the database's encoding does not say what its bytes mean
    │   └── ForeignCluster             the messages came from another cluster
    ├── UnknownGroup (LookupError)        no such consumer group
    ├── UnknownTopic (LookupError)        the group has no such topic
    ├── MessageNotFound (LookupError)         a message is not in the log any more
    ├── SettleError                       an acknowledgement, retry or rejection was refused
    │   ├── LeaseLost                     the lease was superseded: somebody else has the message
    │   ├── AlreadySettled                this message was settled before
    │   └── OutOfOrder                    an earlier message of its key is not settled yet
    ├── ClaimBusy                         other claims of the group held its lock for too long
    ├── ClaimRefused                      claim() ran where it would lose or repeat messages
    ├── ConsumerClosed                    the consumer was closed; its leases are given back
    ├── UsedAfterFork                     an object with connections was used in a forked process
    ├── HandlerTimeout (TimeoutError)     a handler took longer than ``handler_timeout``
    ├── WorkNotDone                       a handler returned a coroutine or the like, not run
    ├── BrokerUnavailable                 a broker cannot be reached, or does not answer
    ├── CaptureIncomplete                 not all that a capture had heard could be published
    ├── ListenUnavailable                      wake-ups do not arrive and polling is switched off
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
    """The payload or its headers cannot be stored as JSON. Nothing was written."""


class PayloadTooLarge(PayloadError):
    """The payload is larger than PostgreSQL can hold. Publish a reference to it."""


class UnsupportedConnection(DurableNotifyError, TypeError):
    """Publish through a psycopg connection, or a SQLAlchemy Connection or Session on psycopg 3."""


class SchemaError(DurableNotifyError):
    """The schema ``durable_notify`` in the database does not fit this package."""


class SchemaMissing(SchemaError):
    """The database has no durable_notify schema. Run ``durable-notify migrate``."""


class SchemaTooOld(SchemaError):
    """The database is behind this package. Run ``durable-notify migrate``."""


class SchemaTooNew(SchemaError):
    """This package is behind the database. Upgrade ``durable-notify``."""


class EncodingUnsupported(SchemaError):
    """The encoding of the database does not say what its bytes mean, as SQL_ASCII does not.

    Any other that PostgreSQL can convert to UTF-8 will do.
    """


class ForeignCluster(SchemaError):
    """The messages were restored from, or replicated by, another cluster.

    Nothing is lost. Once everything has been copied, run ``durable-notify reanchor``: every group
    then goes on with exactly what it had not been handed.

    Or the table that says where they were written was emptied, as by a TRUNCATE of all tables: in
    tests, ``schema.empty_all()`` does that instead.
    """


class UnknownGroup(DurableNotifyError, LookupError):
    """No consumer group has this name. ``durable-notify status`` lists them."""


class UnknownTopic(DurableNotifyError, LookupError):
    """The group does not consume this topic. ``durable-notify status`` lists what it consumes."""


class MessageNotFound(DurableNotifyError, LookupError):
    """A message is not in the log any more. Its dead letter has it whole: publish it anew."""


class SettleError(DurableNotifyError):
    """An acknowledgement, retry or rejection was refused. The database has not changed."""


class LeaseLost(SettleError):
    """The lease was superseded: the message goes, or went, to another consumer.

    Roll back what the handler did in its transaction; its effect belongs to whoever has the
    message now. Raise the consumer's ``lease`` if handlers are regularly paused for longer.
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
    """Not all that a capture had heard could be published when it was told to stop."""


class ClaimBusy(DurableNotifyError):
    """Other claims of the group held its lock for too long. Busy is not empty: try again."""


class ClaimRefused(DurableNotifyError):
    """A claim must be the first and only statement of a READ COMMITTED transaction."""


class ConsumerClosed(DurableNotifyError):
    """The consumer was closed and has given its leases back. Its messages come again."""


class UsedAfterFork(DurableNotifyError):
    """It was made in the process that this one was forked from. Make a new one here.

    Its threads are not in this process, and its connections are the other one's.
    """


class HandlerTimeout(DurableNotifyError, TimeoutError):
    """A handler took longer than the consumer's ``handler_timeout``. Its message is redelivered."""


class WorkNotDone(DurableNotifyError):
    """A handler returned what would do the work, and did not do it. Its message is redelivered.

    Give a handler that is ``async`` to an ``AsyncConsumer``, and one without ``yield`` to any.
    """


class ListenUnavailable(DurableNotifyError):
    """Wake-ups do not reach the listening connection and polling is off.

    A pooler in transaction mode does this. Give a direct ``listen_dsn``, or allow ``poll``.
    """


class EmbeddedError(DurableNotifyError):
    """The embedded PostgreSQL cannot be started or used."""
