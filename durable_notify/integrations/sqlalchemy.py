"""SQLAlchemy: objects that record messages, which the flush of their session publishes.

    class Order(PublishesOnFlush, Base):
        def cancel(self) -> None:
            self.state = "cancelled"
            self.publish_on_flush("orders", {"cancelled": self.id})

The first way to publish is ``publisher.publish(session, ...)``: it is plain to see in the code, and
works without this module. See ``docs/sqlalchemy.md``.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import InstanceState, Session, SessionTransaction
from sqlalchemy.orm.attributes import flag_dirty

from durable_notify._sync.publisher import Publisher
from durable_notify.errors import InvalidArgument
from durable_notify.payloads import NewMessage
from durable_notify.topics import check_topic

if TYPE_CHECKING:
    from typing import Unpack

    from durable_notify.codecs import T
    from durable_notify.payloads import PublishOptions
    from durable_notify.topics import Topic, TopicName

__all__ = ["PublishesOnFlush"]

#: Where an object that no session has keeps its messages, and where a session does.
_WAITING = "_durable_notify_waiting"
_KEPT = "durable_notify.on_flush"

_numbers = itertools.count()


class PublishesOnFlush:
    """A mixin for mapped classes: messages are published when the object is flushed."""

    #: What publishes them: one of your own, with middleware or ``dumps``.
    __publisher__: ClassVar[Publisher] = Publisher()

    def publish_on_flush(
        self,
        topic: str | Topic[T],
        payload: T | Callable[[], T],
        **options: Unpack[PublishOptions],
    ) -> None:
        """Publish a message when the session next flushes, after its statements.

        The message is part of the session's transaction, or savepoint: if that rolls back, no
        group receives it. An object that no session has keeps it until one flushes the object. If
        the insert of an object rolls back, the object keeps its messages too, for the next session
        that it is added to. Messages are in the order in which they were recorded.

        Args:
            topic: its name, or a ``Topic``.
            payload: what ``Publisher.publish`` takes; or a function without arguments that returns
                it, called after the flush: the object has its id then.
            options: those of ``Publisher.publish``.

        Raises:
            InvalidArgument: the topic is invalid, or the object is deleted. What else is wrong with
                the message, the flush raises.
        """
        check_topic(topic)
        record = _Record(self, topic, payload, NewMessage(None, **options))
        state = sa.inspect(self)
        if state.deleted:
            raise InvalidArgument("the object was deleted: publish() in the session instead")
        if state.session is None:
            self.__dict__.setdefault(_WAITING, []).append(record)
        else:
            _keep(state.session, record)


@dataclasses.dataclass(slots=True, eq=False)
class _Record:
    """A message to publish."""

    instance: PublishesOnFlush
    topic: TopicName
    payload: Any
    message: NewMessage[Any]
    number: int = dataclasses.field(default_factory=_numbers.__next__)

    def published_as(self) -> NewMessage[Any]:
        payload = self.payload() if inspect.isroutine(self.payload) else self.payload
        return dataclasses.replace(self.message, payload=payload)


_Records = dict[InstanceState[Any], list[_Record]]


@dataclasses.dataclass(slots=True)
class _Kept:
    """What a session has: messages to publish, and those that its transaction has published."""

    waiting: _Records = dataclasses.field(default_factory=dict)
    published: _Records = dataclasses.field(default_factory=dict)


def _kept(session: Session) -> _Kept:
    kept: _Kept = session.info.setdefault(_KEPT, _Kept())
    return kept


def _keep(session: Session, record: _Record) -> None:
    # Trap: without changes SQLAlchemy would not flush, and nothing would publish the message.
    flag_dirty(record.instance)
    _kept(session).waiting.setdefault(sa.inspect(record.instance), []).append(record)


@event.listens_for(Session, "after_attach")
def _on_attach(session: Session, instance: object) -> None:
    """Take over what an object has recorded without a session."""
    for record in getattr(instance, "__dict__", {}).pop(_WAITING, ()):
        _keep(session, record)


@event.listens_for(Session, "pending_to_transient")
@event.listens_for(Session, "persistent_to_transient")
@event.listens_for(Session, "persistent_to_detached")
def _on_leave(session: Session, instance: object) -> None:
    """Give an object back what is not published, also because its insert was rolled back."""
    kept = session.info.get(_KEPT)
    if kept is None:
        return
    state: InstanceState[Any] = sa.inspect(instance)
    published = kept.published.pop(state, [])
    back = [*(published if state.transient else ()), *kept.waiting.pop(state, ())]
    if back:
        state.dict.setdefault(_WAITING, []).extend(back)


@event.listens_for(Session, "after_flush_postexec")
def _on_flush(session: Session, _: object) -> None:
    """Publish within the flush, whose error rolls the transaction back."""
    kept = session.info.get(_KEPT)
    if not (kept and kept.waiting):
        return
    flushed = [state for state in kept.waiting if not state.pending]
    records = [record for state in flushed for record in kept.waiting[state]]

    def where(record: _Record) -> tuple[TopicName, Publisher, sa.Connection]:
        mapper = sa.inspect(record.instance).mapper
        connection = session.connection(bind_arguments={"mapper": mapper})
        return record.topic, record.instance.__publisher__, connection

    in_order = sorted(records, key=lambda record: record.number)
    for (topic, publisher, connection), some in itertools.groupby(in_order, where):
        publisher.publish_many(connection, topic, [record.published_as() for record in some])
    for state in flushed:
        kept.published.setdefault(state, []).extend(kept.waiting.pop(state))


@event.listens_for(Session, "after_soft_rollback")
def _on_rollback(session: Session, _: SessionTransaction) -> None:
    """Forget what was recorded since: a savepoint begins with a flush of all that was before."""
    if (kept := session.info.get(_KEPT)) is not None:
        kept.waiting.clear()


@event.listens_for(Session, "after_transaction_end")
def _on_end(session: Session, ended: SessionTransaction) -> None:
    if ended.parent is None:
        session.info.pop(_KEPT, None)
