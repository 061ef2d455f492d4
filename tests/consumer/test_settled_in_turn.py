"""The next message of a key begins once what became of the one before is durable, not sooner.

Else, after a kill, the first is redelivered behind the second. Each handler here looks, as it begins,
for what came before it: still out, it would be redelivered.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._core.leases import Lease
from tests.consumer.test_settling import steal
from tests.programs.consumer import consumer_process
from tests.support.api import Api, Recorder, collect, entered, maybe_await, running
from tests.support.observe import outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]
BLOCKED = """
    SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%settle(%'"""


@pytest.fixture(params=["key", "strict"])
def order(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def publish(conn: Connection, number: int) -> list[int]:
    """Several messages of one key."""
    rows = [dn.NewMessage(n, key="k") for n in range(number)]
    return dn.Publisher().publish_many(conn, "t", rows)


class InTurn(Recorder):
    """A handler that sees what is still out of what came before."""

    def __init__(self, conn: Connection, action: Callable[[Any], Any] | None = None) -> None:
        super().__init__(action)
        self._conn = conn
        self.early: list[tuple[int, list[int]]] = []

    async def __call__(self, message: Any) -> None:
        before = [i for i in self.ids if i < message.id]
        query = "SELECT array_agg(message_id) FROM durable_notify.unacknowledged('g', %s) WHERE NOT is_dead"
        if out := value(self._conn, query, before):
            self.early.append((message.id, out))
        await super().__call__(message)


async def nothing(_message: Any) -> None:
    """Return: that acknowledges."""


async def in_its_transaction(message: Any) -> None:
    async with entered(message.transaction()):
        pass


async def fails_once(message: Any) -> None:
    if message.attempt == 1 and message.payload % 2:
        raise ZeroDivisionError


async def is_given_up(message: Any) -> None:
    await message.reject("no")


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("action", [nothing, fails_once, is_given_up])
async def test_run(
    api: Api, dsn: str, conn: Connection, order: Any, action: Any, concurrency: int
) -> None:
    ids = publish(conn, 6)
    seen = InTurn(conn, action)
    consumer = api.consumer(dsn, until_empty=True, order_by=order, retry=dn.RetryPolicy(base=0.01))
    await with_timeout(consumer.run(seen, concurrency=concurrency))
    assert not seen.early
    assert sorted(set(seen.ids)) == ids
    assert seen.ids == sorted(seen.ids)
    assert outstanding(conn) == 0


async def test_as_it_was(dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the next goes once an outcome is known to the process."""
    record = Lease.record

    def recorded(self: Lease, message_id: int, outcome: Any) -> Any:
        outcomes = record(self, message_id, outcome)
        self._report_durable(message_id)
        return outcomes

    monkeypatch.setattr(Lease, "record", recorded)
    publish(conn, 3)
    seen = InTurn(conn)
    await with_timeout(Api("async").consumer(dsn, until_empty=True).run(seen, concurrency=3))
    assert seen.early


COUNTING = """
    CREATE TABLE public.parked (number bigint);
    CREATE FUNCTION public.count_parked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.parked SELECT count(*) FROM new; RETURN NULL; END $$;
    CREATE TRIGGER count_parked AFTER INSERT ON durable_notify.deferred
    REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION public.count_parked()"""


@pytest.mark.parametrize("planted", [False, True])
async def test_few_keys_are_not_claimed_ahead(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch, planted: bool
) -> None:
    """What is claimed while its keys are busy is only deferred, and deferring costs most."""
    if planted:  # the repeated keys of a batch go unnoticed
        monkeypatch.setattr(f"durable_notify._{api.name}.consumer.buffer.REPEATED", 1.0)
    conn.execute(COUNTING)
    rows = [dn.NewMessage(n, key=f"k{n % 20}") for n in range(3000)]
    parked = []
    for _ in range(3):  # which claim comes first is by chance
        ids = dn.Publisher().publish_many(conn, "t", rows)
        seen = Recorder()
        await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
        assert sorted(seen.ids) == ids
        assert outstanding(conn) == 0
        parked.append(value(conn, "SELECT COALESCE(sum(number), 0) FROM public.parked"))
        conn.execute("TRUNCATE public.parked")
    assert (statistics.median(parked) > 750) == planted, parked


@pytest.mark.parametrize("size", [1, 4])
async def test_batches(api: Api, dsn: str, conn: Connection, order: Any, size: int) -> None:
    """Those in one batch are settled together; the next batch waits, and is no smaller for it."""
    ids = publish(conn, 8)
    seen = InTurn(conn)
    sizes = []

    async def handle(batch: list[Any]) -> None:
        sizes.append(len(batch))
        await seen(batch[0])
        seen.messages += batch[1:]

    from tests.consumer.test_transactions import batches

    await with_timeout(
        batches(api, dsn, handle, until_empty=True, order_by=order, size=size, max_wait=0.0)
    )
    assert not seen.early
    assert seen.ids == ids
    assert sizes == [size] * (8 // size)


async def test_iterating(api: Api, dsn: str, conn: Connection, order: Any) -> None:
    ids = publish(conn, 4)
    seen = InTurn(conn)
    async with api.consumer(dsn, until_empty=True, order_by=order) as consumer:
        async for message in consumer:
            await seen(message)
            consumer.settle_soon(getattr(message, "message", message), dn.Ack())
    assert not seen.early
    assert seen.ids == ids


async def test_killed(api: Api, dsn: str, conn: Connection, order: str) -> None:
    """kill -9 as the second begins: the first is not redelivered."""
    first, second = publish(conn, 2)
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    conn.execute("SELECT durable_notify.configure('g', %s)", [f'{{"order_by": "{order}"}}'])
    with consumer_process(api, dsn, "dies at the second", "--lease", "1") as process:
        assert [m["id"] for m in process.handled(2)] == [first, second]
        process.ended()
    seen = Recorder()
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert [(m.id, m.attempt) for m in seen.messages] == [(second, 2)]


async def test_settling_fails(api: Api, dsn: str, conn: Connection, order: Any) -> None:
    """The next waits until it is known that the outcome is durable, however long that takes."""
    ids = publish(conn, 2)
    locked: list[Connection] = []

    async def hold_up(message: Any) -> None:
        if message.id == ids[0]:
            locked.append(psycopg.connect(dsn))
            locked[0].execute("SELECT FROM durable_notify.lease FOR UPDATE")

    seen = Recorder(hold_up)
    async with running(api.consumer(dsn, order_by=order), seen):
        for _ in range(2):
            await wait_until(lambda: conn.execute(BLOCKED).fetchone())
            assert seen.ids == ids[:1]
            for (pid,) in conn.execute(BLOCKED).fetchall():
                conn.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
        assert seen.ids == ids[:1]
        locked[0].close()
        await seen.got(2)
        await wait_until(lambda: outstanding(conn) == 0)
    assert seen.attempts == [1, 1]


async def test_the_lease_is_lost(api: Api, dsn: str, conn: Connection, order: Any) -> None:
    """Another consumer has the first, and so the second: it does not run here."""
    ids = publish(conn, 2)
    others: list[int] = []

    async def stolen(message: Any) -> None:
        if message.id == ids[0]:
            assert steal(conn) == ids
            others.extend(send(conn, ["later"], "u"))

    seen = Recorder(stolen)
    async with running(api.consumer(dsn, topics=["t", "u"], order_by=order), seen, concurrency=1):
        await wait_until(lambda: set(others) & set(seen.ids))
        # Settled, or known to be lost: what was to run of the key would have been let go.
        await wait_until(lambda: value(conn, "SELECT count(*) FROM durable_notify.lease") == 1)
    assert seen.ids == [ids[0], *others]


async def test_rolled_back_in_silence(api: Api, dsn: str, conn: Connection, order: Any) -> None:
    """The consumer asks the database whether the transaction committed before it starts the next."""
    ids = publish(conn, 3)

    async def handle(message: Any) -> None:
        async with api.connect(dsn) as connection:
            await message.ack(connection)
            if message.attempt == 1 and message.id == ids[1]:
                await maybe_await(connection.rollback())
            else:
                await maybe_await(connection.commit())

    seen = InTurn(conn, handle)
    await with_timeout(api.consumer(dsn, until_empty=True, order_by=order).run(seen))
    assert not seen.early
    assert seen.ids == [ids[0], ids[1], ids[1], ids[2]]
    assert seen.attempts == [1, 1, 2, 1]


async def test_a_savepoint_rolled_back(api: Api, dsn: str, conn: Connection) -> None:
    """The transaction commits, and the acknowledgement is not in it."""
    ids = publish(conn, 2)

    async def handle(message: Any) -> None:
        async with api.connect(dsn) as connection, entered(connection.transaction()):
            async with entered(connection.transaction()) as inner:
                await message.ack(connection)
                if message.attempt == 1 and message.id == ids[0]:
                    raise psycopg.Rollback(inner)

    seen = InTurn(conn, handle)
    await with_timeout(api.consumer(dsn, until_empty=True).run(seen))
    assert not seen.early
    assert seen.ids == [ids[0], ids[0], ids[1]]


async def test_committed_by_the_message(api: Api, dsn: str, conn: Connection, order: Any) -> None:
    if not api.is_async:
        pytest.skip("handlers of this half run on the test's loop")
    ids = publish(conn, 4)
    seen = InTurn(conn, in_its_transaction)
    await with_timeout(api.consumer(dsn, until_empty=True, order_by=order).run(seen))
    assert not seen.early
    assert seen.ids == ids


async def test_several_of_a_key_in_one_transaction(
    api: Api, dsn: str, conn: Connection, order: Any
) -> None:
    """A transaction that settles several does not wait for its own commit."""
    ids = publish(conn, 3)
    async with api.consumer(dsn, order_by=order) as consumer, api.connect(dsn) as connection:
        got = []
        for _ in range(3):
            (message,) = await collect(consumer, 1)
            got.append(message.id)
            await message.ack(connection)
        await maybe_await(connection.commit())
        assert got == ids
    assert outstanding(conn) == 0


async def test_several_keys_go_together(api: Api, dsn: str, conn: Connection) -> None:
    """Group commit: of many keys at once there are far fewer transactions than messages."""
    rows = [dn.NewMessage(n, key=str(n % 50)) for n in range(200)]
    dn.Publisher().publish_many(conn, "t", rows)
    counts: list[int] = []
    consumer = api.consumer(dsn, until_empty=True, on_event=lambda e: settled(e, counts))
    await with_timeout(consumer.run(nothing))
    assert sum(counts) == 200
    assert len(counts) <= 100


def settled(event: Any, counts: list[int]) -> None:
    if event.name == "settled":
        counts.append(event.acked)
