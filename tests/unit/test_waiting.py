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


class Takers:
    """Getters of a queue, as workers are, and what each has taken."""

    def __init__(self, queue: Queue[int], number: int, *, waits: asyncio.Event | None) -> None:
        self.taken: dict[int, list[int]] = {}
        self.tasks = [asyncio.ensure_future(self._take(queue, i, waits)) for i in range(number)]

    async def _take(self, queue: Queue[int], number: int, waits: asyncio.Event | None) -> None:
        while True:
            try:
                entry = queue.get_nowait()
            except Queue.EMPTY:
                entry = await queue.get()
            self.taken.setdefault(number, []).append(entry)
            await (queue.checkpoint() if waits is None else waits.wait())

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)


async def turns(number: int) -> None:
    for _ in range(number):
        await checkpoint()


async def test_one_getter_takes_all_if_it_never_waits() -> None:
    queue: Queue[int] = Queue()
    takers = Takers(queue, 100, waits=None)
    await checkpoint()
    queue.put(*range(30))
    await turns(10)
    queue.put(*range(30, 60))
    await turns(60)
    assert takers.taken == {0: list(range(60))}
    await takers.end()


async def test_all_getters_take_some_soon_if_each_waits() -> None:
    queue: Queue[int] = Queue()
    takers = Takers(queue, 100, waits=asyncio.Event())
    await checkpoint()
    queue.put(*range(1000))
    await turns(8)  # 1, 2, 4, 8, 16, 32, 64
    assert {number: taken[0] for number, taken in takers.taken.items()} == {
        number: number for number in range(100)
    }
    assert queue.size() == 900
    await takers.end()


@pytest.mark.parametrize("entries", [1, 2, 3, 7])
async def test_no_entry_is_left_while_a_getter_waits_for_one(entries: int) -> None:
    queue: Queue[int] = Queue()
    takers = Takers(queue, 5, waits=asyncio.Event())
    await checkpoint()
    for entry in range(entries):
        queue.put(entry)
    await turns(8)
    assert len(takers.taken) == min(entries, 5)
    await takers.end()


async def test_others_take_what_a_getter_leaves_that_is_cancelled_at_its_checkpoint() -> None:
    queue: Queue[int] = Queue()
    first = Takers(queue, 1, waits=None)
    others = Takers(queue, 2, waits=asyncio.Event())
    await checkpoint()
    queue.put(1, 2, 3)
    await checkpoint()
    assert (first.taken, others.taken) == ({0: [1]}, {})
    await first.end()
    await turns(4)
    assert others.taken == {0: [2], 1: [3]}
    await others.end()


async def test_others_take_what_is_left_when_a_getter_waits_after_its_checkpoint() -> None:
    queue: Queue[int] = Queue()
    block = asyncio.Event()

    async def first() -> None:
        await queue.get()
        await queue.checkpoint()
        queue.get_nowait()
        await block.wait()

    blocked = asyncio.ensure_future(first())
    others = Takers(queue, 2, waits=block)
    await checkpoint()
    queue.put(1, 2, 3)
    await turns(6)
    assert others.taken == {0: [3]}
    blocked.cancel()
    await others.end()


def test_what_is_found_by_topic_is_not_kept_for_ever() -> None:
    by_topic: ByTopic[int] = ByTopic()
    by_topic.set("orders.*", 1)
    for number in range(REMEMBERED + 10):
        assert by_topic.find(f"orders.{number}") == 1
    assert len(by_topic._found) <= REMEMBERED
