"""Options of groups with consumers of both halves: order, patterns, exclusive, rules for errors."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.support.api import Api, Recorder, collect, maybe_await, running
from tests.support.observe import asleep, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]


def send_keyed(conn: Connection, *pairs: tuple[Any, str | None], topic: str = "t") -> list[int]:
    outgoing = [dn.NewMessage(payload, key) for payload, key in pairs]
    return dn.Publisher().publish_many(conn, topic, outgoing)


class InProgress:
    """A handler that records how many messages of a key run at once, and in which order."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.most = 0
        self.done: dict[str, list[int]] = {}

    async def __call__(self, message: Any) -> None:
        key = message.key
        self.now[key] = self.now.get(key, 0) + 1
        self.most = max(self.most, self.now[key])
        await asyncio.sleep(0.001)
        self.done.setdefault(key, []).append(message.id)
        self.now[key] -= 1


async def test_one_message_of_a_key_at_a_time(api: Api, dsn: str, conn: Connection) -> None:
    ids = send_keyed(conn, *((n, f"k{n % 7}") for n in range(140)))
    work = InProgress()
    consumers = [api.consumer(dsn, until_empty=True, batch_size=20) for _ in range(2)]
    await with_timeout(asyncio.gather(*(c.run(work, concurrency=4) for c in consumers)))
    assert work.most == 1
    assert work.done == {f"k{n}": ids[n::7] for n in range(7)}


async def test_a_retry_holds_back_its_key(api: Api, dsn: str, conn: Connection) -> None:
    send_keyed(conn, ("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"))
    order: list[tuple[Any, int]] = []

    def handle(message: Any) -> None:
        order.append((message.payload, message.attempt))
        if message.payload == "a1" and message.attempt < 3:
            raise ZeroDivisionError

    consumer = api.consumer(dsn, until_empty=True, retry=dn.RetryPolicy(base=0.01))
    await with_timeout(consumer.run(Recorder(handle), concurrency=3))
    assert [done for done in order if done[0][0] == "a"] == [
        ("a1", 1), ("a1", 2), ("a1", 3), ("a2", 1), ("a3", 1)
    ]  # fmt: skip
    assert outstanding(conn) == 0


async def test_iterating_waits_for_the_outcome(api: Api, dsn: str, conn: Connection) -> None:
    ids = send_keyed(conn, (1, "k"), (2, "k"), (3, None))
    async with api.consumer(dsn) as consumer:
        first, free = await collect(consumer, 2)
        assert [first.id, free.id] == [ids[0], ids[2]]
        waiting = asyncio.ensure_future(anext(consumer))
        await asleep(consumer)
        assert not waiting.done()
        async with api.connect(dsn) as mine:
            await first.ack(mine)
            await maybe_await(mine.commit())
        await free.ack()
        # In a loop its body is over by then; here the next message is asked for already.
        await first_is_over(consumer, first)
        second = await with_timeout(waiting)
        assert second.id == ids[1]
        async with api.connect(dsn) as mine:
            await second.ack(mine)
            await maybe_await(mine.commit())


async def first_is_over(consumer: Any, message: Any) -> None:
    inner = getattr(consumer, "consumer", consumer)
    finished = getattr(message, "message", message)
    inner._lease_manager.settled_in_transaction(finished._lease, finished.id)


async def test_many_acknowledged_in_their_own_transactions(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Those before it of its key are settled before a message's own transaction says so."""
    ids = send_keyed(conn, *((n, "k") for n in range(30)))
    done: list[int] = []

    async def handle(message: Any) -> None:
        if message.payload % 3 == 0:
            async with api.connect(dsn) as mine:
                await message.ack(mine)
                await maybe_await(mine.commit())
        done.append(message.id)

    await with_timeout(api.consumer(dsn, until_empty=True).run(handle, concurrency=4))
    assert done == ids
    assert outstanding(conn) == 0


async def test_a_message_python_cannot_decode_keeps_the_order(
    api: Api, dsn: str, conn: Connection
) -> None:
    send_keyed(conn, (1, "k"))
    conn.execute("SELECT durable_notify.publish('t', ('1' || repeat('0', 5000))::jsonb, 'k')")
    send_keyed(conn, (3, "k"))
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert [m.payload for m in seen.messages] == [1, 3]
    assert value(conn, "SELECT count(*) FROM durable_notify.dead_letter") == 1


async def test_strict(api: Api, dsn: str, conn: Connection) -> None:
    ids = send_keyed(conn, *((n, str(n)) for n in range(20)))
    seen = Recorder()
    consumers = [api.consumer(dsn, until_empty=True, order_by="strict", batch_size=3) for _ in "ab"]
    await with_timeout(asyncio.gather(*(c.run(seen, concurrency=3) for c in consumers)))
    assert seen.ids == ids


async def test_a_strict_group_wakes_when_a_publisher_rolls_back(
    api: Api, dsn: str, conn: Connection
) -> None:
    seen = Recorder()
    consumer = api.consumer(dsn, order_by="strict")
    async with running(consumer, seen):
        await asleep(getattr(consumer, "consumer", consumer))
        with psycopg.connect(dsn) as slow:
            dn.Publisher().publish(slow, "t", "never")
            (second,) = send(conn, ["second"])
            slow.rollback()
        await seen.got(1)
    assert seen.ids == [second]


async def test_exclusive_fail_over(api: Api, dsn: str, conn: Connection) -> None:
    first, second = Recorder(), Recorder()
    one = api.consumer(dsn, exclusive=True)
    other = api.consumer(dsn, exclusive=True)
    send(conn, [1])
    async with running(one, first):
        await first.got(1)
        async with running(other, second):
            await asleep(getattr(other, "consumer", other))
            send(conn, [2])
            await first.got(2)
            assert second.messages == []
            one.stop()
            send(conn, [3])
            await second.got(1)
    assert [m.payload for m in second.messages] == [3]


async def test_an_exclusive_group_keeps_its_long_worker(
    api: Api, dsn: str, conn: Connection
) -> None:
    """A handler that runs for longer than its lease stays the active one."""
    release = asyncio.Event()
    first, second = Recorder(lambda _: release.wait()), Recorder()
    one = api.consumer(dsn, exclusive=True, lease=2)
    send(conn, [1, 2])
    async with running(one, first):
        await first.got(1)
        over = "SELECT clock_timestamp() > %s"
        until = value(conn, "SELECT max(deadline) FROM durable_notify.leases()")
        other = api.consumer(dsn, exclusive=True, lease=2)
        async with running(other, second):
            await wait_until(lambda: value(conn, over, until))
            assert second.messages == []
            release.set()
            await first.got(2)
    assert second.messages == []


async def test_new_topics_of_a_pattern(api: Api, dsn: str, conn: Connection) -> None:
    seen = Recorder()
    send(conn, [0], "orders.eu")
    consumer = api.consumer(dsn, topics=["orders.*", "t"])
    async with running(consumer, seen):
        await seen.got(1)
        for n, topic in enumerate(["orders.us", "orders.asia", "orders.us", "t"], 2):
            await asleep(getattr(consumer, "consumer", consumer))
            send(conn, [n], topic)
            await seen.got(n)
        send(conn, ["no"], "invoices.eu")
        send(conn, [6], "orders.us")
        await seen.got(6)
    topics = [m.topic for m in seen.messages]
    assert topics == ["orders.eu", "orders.us", "orders.asia", "orders.us", "t", "orders.us"]


async def test_hundreds_of_topics(api: Api, dsn: str, conn: Connection) -> None:
    seen = Recorder()
    topics = [f"t{n}" for n in range(200)]
    consumer = api.consumer(dsn, topics=topics)
    claimed: list[list[str]] = []
    async with running(consumer, seen):
        inner = getattr(consumer, "consumer", consumer)
        await asleep(inner)
        claim = inner._queries.claim
        inner._queries.claim = lambda names, most: claimed.append(list(names)) or claim(names, most)
        for n in range(5):
            await asleep(inner)
            send(conn, [n], f"t{n * 7}")
            await seen.got(n + 1)
    assert [m.topic for m in seen.messages] == [f"t{n * 7}" for n in range(5)]
    assert all(len(names) <= 2 for names in claimed), claimed


async def test_in_flight_over_consumers(api: Api, dsn: str, conn: Connection) -> None:
    ids = send(conn, range(40))
    work = {"now": 0, "most": 0}
    seen: list[int] = []

    async def handle(message: Any) -> None:
        work["now"] += 1
        work["most"] = max(work["most"], work["now"])
        await asyncio.sleep(0.002)
        work["now"] -= 1
        seen.append(message.id)

    consumers = [api.consumer(dsn, until_empty=True, max_in_flight=3) for _ in range(2)]
    await with_timeout(asyncio.gather(*(c.run(handle, concurrency=8) for c in consumers)))
    assert sorted(seen) == ids
    assert work["most"] <= 3


async def test_changed_while_it_runs(api: Api, dsn: str, conn: Connection) -> None:
    admin = dn.Admin()
    seen = Recorder()
    consumer = api.consumer(dsn)
    async with running(consumer, seen):
        await asleep(getattr(consumer, "consumer", consumer))
        admin.pause(conn, "g")
        send(conn, [1])
        (group,) = admin.groups(conn)
        assert group.paused_at is not None
        assert seen.messages == []
        admin.resume(conn, "g")
        await seen.got(1)
        admin.configure(conn, "g", retry=dn.RetryPolicy(max_attempts=7), rate_limit=1000)
        (group,) = admin.groups(conn)
        assert (group.max_attempts, group.rate_limit, group.topics) == (7, 1000, ["t"])
        admin.configure(conn, "g", rate_limit=None)
        assert admin.groups(conn)[0].rate_limit is None
    admin.rename_group(conn, "g", "h")
    assert admin.blocking_publishers(conn, "h") == []
    admin.delete_group(conn, "h")
    assert admin.groups(conn) == []
    with pytest.raises(dn.errors.UnknownGroup):
        admin.pause(conn, "h")
    with pytest.raises(dn.InvalidArgument, match="no option"):
        admin.configure(conn, "h", colour="red")  # type: ignore[call-arg]


async def test_a_consumer_of_a_deleted_group_ends(api: Api, dsn: str, conn: Connection) -> None:
    consumer = api.consumer(dsn)
    task = asyncio.ensure_future(consumer.run(Recorder()))
    await wait_until(lambda: getattr(consumer, "consumer", consumer)._subscription is not None)
    await asleep(getattr(consumer, "consumer", consumer))
    dn.Admin().delete_group(conn, "g")
    with pytest.raises(dn.errors.UnknownGroup):
        await with_timeout(task)


async def test_rules_for_errors(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, ["key", "time", "fine", "other"])
    errors = {"key": KeyError("k"), "time": TimeoutError(), "fine": FileExistsError()}

    def handle(message: Any) -> None:
        if error := errors.get(message.payload):
            raise error
        if message.payload == "other" and message.attempt == 1:
            raise RuntimeError("unlisted")

    rules = {
        KeyError: dn.Reject("no such key"), TimeoutError: dn.Retry(3600), OSError: dn.Ack()
    }  # fmt: skip
    seen = Recorder(handle)
    consumer = api.consumer(dsn, on_error=rules, retry=dn.RetryPolicy(base=0.01))
    async with running(consumer, seen):
        await seen.got(5)
    query = "SELECT payload #>> '{}', reason, error ->> 'type', error ->> 'traceback' FROM durable_notify.dead_letter"
    ((payload, reason, kind, trace),) = conn.execute(query).fetchall()
    assert (payload, reason, kind) == ("key", "no such key", "KeyError")
    assert "in handle" in trace
    query = "SELECT error ->> 'type', due_at > now() + interval '50 minutes' FROM durable_notify.deferred"
    # TimeoutError is an OSError, too: the first rule that fits counts.
    assert conn.execute(query).fetchall() == [("TimeoutError", True)]


async def test_a_function_for_errors(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1, 2])

    def handle(message: Any) -> None:
        raise ValueError(message.payload)

    def judge(error: BaseException, message: Any) -> Any:
        return dn.Reject(f"{error} at {message.attempt}") if message.attempt == 2 else None

    consumer = api.consumer(dsn, on_error=judge, retry=dn.RetryPolicy(base=0.01), until_empty=True)
    await with_timeout(consumer.run(Recorder(handle)))
    query = "SELECT reason FROM durable_notify.dead_letter ORDER BY message_id"
    assert conn.execute(query).fetchall() == [("1 at 2",), ("2 at 2",)]


@pytest.mark.parametrize(("old", "new"), [("key", "none"), ("none", "key"), ("strict", "none")])
async def test_order_changed_amid_a_batch_leaves_nothing_behind(
    api: Api, dsn: str, conn: Connection, old: str, new: str
) -> None:
    """What is closed here behind a retry of its key is sent back there, whatever the order is by then."""
    ids = send_keyed(conn, *((n, "k") for n in range(4)))
    done: list[int] = []

    def handle(message: Any) -> None:
        if message.id == ids[0] and message.attempt == 1:
            dn.Admin().configure(conn, "g", order_by=new)
            raise RuntimeError("once")
        done.append(message.id)

    options = {"order_by": old, "retry": dn.RetryPolicy(base=0.001, max=0.001)}
    consumer = api.consumer(dsn, until_empty=True, **options)
    await with_timeout(consumer.run(handle))
    assert sorted(done) == ids
