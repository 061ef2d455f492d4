"""Events and queues of the asynchronous half."""

from __future__ import annotations

import asyncio

import pytest

from durable_notify._async.concurrency import Event, Queue, checkpoint
from durable_notify.topics import REMEMBERED, ByTopic


async def test_an_event_ends_all_waits() -> None:
    event = Event()
    waits = [asyncio.ensure_future(event.wait(timeout)) for timeout in (None, 60.0, None)]
    await checkpoint()
    event.set()
    assert await asyncio.gather(*waits) == [True] * 3
    assert await event.wait(0.0)
    event.clear()
    assert not await event.wait(0.0)
    assert not event.is_set()


async def test_an_event_that_is_set_as_the_time_ends() -> None:
    event = Event()
    waiting = asyncio.ensure_future(event.wait(0.0))
    await checkpoint()
    event.set()
    assert await waiting


async def test_a_queue_keeps_the_order() -> None:
    queue: Queue[int] = Queue()
    gets = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await checkpoint()
    queue.put(1, 2, 3, 4)
    assert await asyncio.gather(*gets) == [1, 2, 3]
    assert (queue.size(), queue.get_nowait()) == (1, 4)
    with pytest.raises(Queue.EMPTY):
        queue.get_nowait()
    with pytest.raises(Queue.EMPTY):
        await queue.get(0.0)


async def test_an_entry_for_a_getter_that_is_cancelled_goes_to_the_next() -> None:
    queue: Queue[int] = Queue()
    first, second = (asyncio.ensure_future(queue.get()) for _ in range(2))
    await checkpoint()
    queue.put(1)
    first.cancel()
    assert await asyncio.wait_for(second, 10) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_entry_that_another_takes_is_waited_for_again() -> None:
    queue: Queue[int] = Queue()
    waiting = asyncio.ensure_future(queue.get(60.0))
    await checkpoint()
    queue.put(1)
    assert queue.get_nowait() == 1
    await checkpoint()
    queue.put(2)
    assert await asyncio.wait_for(waiting, 10) == 2


def test_what_is_found_by_topic_is_not_kept_for_ever() -> None:
    by_topic: ByTopic[int] = ByTopic()
    by_topic.set("orders.*", 1)
    for number in range(REMEMBERED + 10):
        assert by_topic.find(f"orders.{number}") == 1
    assert len(by_topic._found) <= REMEMBERED
