# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Dispatching: call handlers, and settle what they leave unsettled."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from ..._core.callables import StopConsumer, check_done
from ..._core.leases import Ack, Retry
from ..._core.sanitize import describe
from ...errors import AlreadySettled, HandlerTimeout, LeaseLost
from ..concurrency import CANCELLED, Event, StillRuns, call, current_task, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..._core.emitter import EventEmitter
    from ..._core.leases import Outcome
    from ...options import ConsumerOptions
    from ..concurrency import Task
    from .buffer import PrefetchBuffer
    from .leases import LeaseManager
    from .message import Message

__all__ = ["Dispatcher"]

log = logging.getLogger("durable_notify")

#: After how many messages to let other tasks run, if handlers never wait.
YIELD_EVERY = 64
#: How long a cancelled handler may take to clean up, in seconds.
GRACE = 1.0
#: How long to wait for handlers before the first warning, in seconds.
PATIENCE = 1.0
#: How often to warn that handlers are still running, in seconds.
REMINDER = 10.0
#: The most messages to name in the log.
NAMED = 5
_ACK = Ack()
#: What ends the worker that has called the handler, and releases the message.
_ENDS: tuple[type[BaseException], ...] = (StopConsumer, *CANCELLED)


class Call:
    """A worker's call of the handler, and its messages; the next call is the same object."""

    __slots__ = ("began", "messages", "number", "still_runs", "task")

    def __init__(self, number: int) -> None:
        self.number = number
        self.messages: list[Message] = []
        self.began = 0.0
        self.task = current_task()
        self.still_runs = False  # it was cancelled, and its thread still runs


class Dispatcher:
    """Runs workers, which take messages and call the handler.

    A worker ends when the consumer stops, or by a fault, which ends the consumer. Or it is given up
    with its handler: after ``handler_timeout``, or when the dispatcher no longer waits for
    handlers. Its worker or ``_give_up`` takes a call out of ``_calls``; the one that does settles
    the messages.

    Args:
        buffer: delivers messages.
        lease_manager: receives their outcomes.
        options: of the consumer.
        emitter: emits the events of calls.
        took: called with how many messages were handled, and how long that took.
        stopping: set once nothing more may be handled.
        ended: called with the error that ends the consumer.
    """

    def __init__(
        self,
        buffer: PrefetchBuffer,
        lease_manager: LeaseManager,
        *,
        options: ConsumerOptions,
        emitter: EventEmitter,
        took: Callable[[int, float, float], None],
        stopping: Event,
        ended: Callable[[BaseException], None],
    ) -> None:
        self._buffer = buffer
        self._lease_manager = lease_manager
        self._options = options
        self._emitter = emitter
        self._emits = bool(emitter)
        self._took = took
        self._stopping = stopping
        self._ended = ended
        self._over = Event()  # no worker is left, or none is waited for
        self._hurried = False
        self._calls: dict[int, Call] = {}  # by the worker's number
        self._workers: dict[int, Task] = {}
        self._living: set[int] = set()  # the numbers of the workers that were not given up
        self._numbers = itertools.count()
        self._work: Callable[[int], Any] = self._nothing
        self.fault: BaseException | None = None

    @property
    def busy(self) -> int:
        """How many messages are with handlers."""
        return sum(len(one.messages) for one in list(self._calls.values()))

    def singly(self, handler: Callable[[Any], Any]) -> None:
        """Call the handler with one message at a time."""

        def work(number: int) -> None:
            made = Call(number)
            for handled in itertools.count(1):
                message = self._buffer.next()
                if message is None or not self._handle(made, handler, message, [message]):
                    return
                if handled % YIELD_EVERY == 0:
                    self._buffer.checkpoint()

        self._work = work

    def in_batches(self, handler: Callable[[Any], Any], size: int, max_wait: float) -> None:
        """Call the handler with lists of messages."""

        def work(number: int) -> None:
            made = Call(number)
            while batch := self._buffer.batch(size, max_wait):
                # A copy: the handler may take its list apart, and all are settled after it.
                if not self._handle(made, handler, list(batch), batch):
                    return
                self._buffer.checkpoint()

        self._work = work

    def run(self, concurrency: int) -> None:
        """Call the handler for messages until there are no more."""
        watch = spawn(self._watched, name="durable_notify watch")
        try:
            for _ in range(concurrency):
                self._hire()
            while not self._over.wait(1.0):
                pass  # short waits: a signal that arrives as a wait begins is handled only after it
        finally:
            self._stopping.set()
            self._buffer.end()
            if self._hurried and self._calls:
                log.warning("%d handlers do not end: no longer waiting for them", len(self._calls))
            for number, worker in list(self._workers.items()):
                if self._hurried:
                    self._give_up(number)
                    worker.cancel(GRACE)
                else:
                    worker.stop()
            self._over.set()
            watch.join()

    def hurry(self) -> None:
        """Stop waiting for handlers. A signal handler may call it."""
        self._hurried = True
        self._stopping.set()
        self._over.set()

    def _nothing(self, number: int) -> None:
        del number

    def _hire(self) -> None:
        number = next(self._numbers)
        self._living.add(number)  # before it can end
        self._workers[number] = spawn(self._body, number, name=f"durable_notify worker {number}")

    def _body(self, number: int) -> None:
        try:
            self._work(number)
        except CANCELLED:
            raise
        except BaseException as error:
            # Trap: two of them, SystemExit and KeyboardInterrupt, would end the event loop as well.
            self._fail(error)
        finally:
            self._leave(number)

    def _leave(self, number: int) -> None:
        self._living.discard(number)
        if not self._living:
            self._over.set()

    def _fail(self, error: BaseException) -> None:
        """End the consumer by an error; the other workers finish their messages."""
        if self.fault is None:
            self.fault = error
        self._ended(error)
        self._buffer.end()

    def _handle(
        self,
        made: Call,
        handler: Callable[[Any], Any],
        argument: Any,
        messages: list[Message],
    ) -> bool:
        """Call a handler, and settle those of its messages that it has not settled.

        Returns whether its worker may continue.
        """
        number, made.messages, made.began = made.number, messages, time.monotonic()
        self._calls[number] = made
        self._buffer.begun(len(messages))
        failure = self._failure_of(handler, argument, made.task)
        given_up = self._calls.pop(number, None) is None
        if isinstance(failure, StillRuns):
            made.still_runs = True
            raise failure
        if given_up:
            log.warning("the handler of %r has ended, after its handler_timeout", argument)
            return False
        if isinstance(failure, _ENDS):
            raise failure
        seconds = time.monotonic() - made.began
        self._took(len(messages), seconds, messages[0]._lease.claimed_at)
        if self._emits:
            self._emitter.handled(messages, seconds, failure)
        if failure is None:
            self._handled(messages)
        else:
            _say(argument, failure)
            self._failed(messages, failure)
        if pending := self._lease_manager.pending_in_transaction:
            pending.difference_update((message._lease, message.id) for message in messages)
        if not (failure is None or isinstance(failure, Exception)):
            raise failure  # such as SystemExit: the consumer ends
        return True

    def _failure_of(
        self, handler: Callable[[Any], Any], argument: Any, task: Any = None
    ) -> BaseException | None:
        """Call a handler, and return what it raised; ``task``: the current one."""
        try:
            check_done(call(handler, argument, task=task))
        except BaseException as error:
            return error
        return None

    def _handled(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if (error := self._acknowledge(message)) is not None:
                self._settle_failed(message, error)

    def _failed(self, messages: Iterable[Message], error: BaseException) -> None:
        for message in messages:
            if message.id in message._lease.open:
                self._settle_failed(message, error)

    def _acknowledge(self, message: Message) -> BaseException | None:
        """Acknowledge what a handler has not settled; return why its transaction rolled back."""
        lease = message._lease
        if message.id not in lease.open:
            return None
        if (error := lease.rolled_back_by.get(message.id)) is not None:
            log.warning("the handler of %r returned, but its transaction rolled back", message)
            return error
        if message.id in lease.in_transaction:
            self._lease_manager.settled_in_transaction(lease, message.id)
        else:
            try:
                self._lease_manager.settle_soon(lease, message.id, _ACK)
            except (AlreadySettled, LeaseLost) as error:
                log.warning(
                    "the handler of %r finished after its lease was lost: %s", message, error
                )
        return None

    def _settle_failed(self, message: Message, error: BaseException) -> None:
        """Settle a message as the rules for errors say.

        Raises:
            BaseException: the rules for errors raised one that is not an Exception.
        """
        outcome, fault = self._outcome_of(error, message)
        self._lease_manager.settle_failed(message._lease, message.id, outcome)
        if fault is not None:
            raise fault

    def _outcome_of(
        self, error: BaseException, message: Message
    ) -> tuple[Outcome, BaseException | None]:
        """Return the outcome by the rules for errors, and a BaseException that they raised."""
        try:
            return self._options.outcome_of(error, message), None
        except BaseException as flaw:
            log.exception("on_error failed at %r: the message is retried", message)
            return Retry(error=describe(error)), None if isinstance(flaw, Exception) else flaw

    # Handlers that take too long

    def _settle_given_up(self, message: Message, error: BaseException) -> None:
        lease = message._lease
        if message.id not in lease.open:
            return
        if not self._lease_manager.leave_to_transaction(lease, message.id):
            self._settle_failed(message, error)

    def _give_up(self, number: int) -> list[Message]:
        """Take a call from its worker; return its messages, none if the worker was first."""
        if (taken := self._calls.pop(number, None)) is None:
            return []
        for message in taken.messages:
            message._lease.withdraw(message.id, "its handler was given up")
        return taken.messages

    def _watched(self) -> None:
        try:
            self._watch()
        except Exception as error:
            self._fail(error)

    def _watch(self) -> None:
        """Give up handlers that take too long, and name those that a stop waits for."""
        say_at: float | None = None
        while not self._over.is_set():
            now = time.monotonic()
            if self._stopping.is_set():
                say_at = say_at or now + PATIENCE
                if now >= say_at and self._calls:
                    say_at = now + REMINDER
                    self._log_running_handlers()
            self._give_up_overdue(now)
            pause = self._pause(now := time.monotonic())
            if say_at is not None:
                pause = max(0.001, min(pause, say_at - now)) if self._calls else pause
            (self._over if self._stopping.is_set() else self._stopping).wait(pause)

    def _pause(self, now: float) -> float:
        timeout = self._options.handler_timeout
        if timeout is None:
            return REMINDER
        ends = [one.began + timeout - now for one in list(self._calls.values())]
        return max(0.001, min([*ends, timeout, REMINDER]))

    def _log_running_handlers(self) -> None:
        calls = list(self._calls.values())
        ids = [message.id for one in calls for message in one.messages]
        names = ", ".join(map(str, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")
        log.warning("stopping: waiting for %d handlers, of messages %s", len(calls), names)

    def _give_up_overdue(self, now: float) -> None:
        timeout = self._options.handler_timeout
        if timeout is None:
            return
        overdue = [one for one in list(self._calls.values()) if now - one.began >= timeout]
        for one in overdue:
            if not (messages := self._give_up(one.number)):
                continue
            if not self._stopping.is_set():
                self._hire()
            worker = self._workers.pop(one.number, None)
            ended = worker is not None and worker.cancel(GRACE) and not one.still_runs
            self._leave(one.number)  # if it still runs, the consumer does not wait for it
            log.warning(
                "the handler of %r took longer than handler_timeout, %g s: %s", messages, timeout,
                "cancelled" if ended else "it still runs, and its outcome will be refused",
            )  # fmt: skip
            error = HandlerTimeout(f"the handler took longer than {timeout:g} s")
            if self._emits:
                self._emitter.handled(messages, now - one.began, error)
            for message in messages:
                self._settle_given_up(message, error)


def _say(argument: Any, failure: BaseException) -> None:
    try:
        log.warning("the handler of %r failed", argument, exc_info=failure)
    except Exception as flaw:  # some exceptions cannot be formatted
        kind, why = type(failure).__name__, type(flaw).__name__
        log.warning("the handler of %r failed: %s, which cannot be shown: %s", argument, kind, why)
