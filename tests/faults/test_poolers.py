"""pgbouncer in session and in transaction mode, with and without a direct DSN for listening.

Publishers go through it too. Asserted, for consumers of both halves:

- everything that was published is handled once, and of each key in order;
- wake-ups alone do where the listening connection is direct, or the pooler lends whole sessions:
  nothing polls there;
- through a pooler in transaction mode a consumer says once that it is deaf, and polls;
- a pooler that is killed and started again under load costs nothing but time: nothing is lost,
  and transactional handlers have their effect once;
- our own connections prepare statements only where nothing stands in between, and do without
  where that turns out to be wrong.

The planted variant believes that it hears because LISTEN brought no error, and sleeps for ever.
DURABLE_NOTIFY_SECONDS makes the run with restarts longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._async.wakeups import listener as async_listener
from durable_notify._sync.wakeups import listener as sync_listener
from tests.faults.chance import seconds
from tests.support.api import Api, Recorder, in_thread, maybe_await, record_in_transaction, running
from tests.support.observe import asleep, outstanding, send
from tests.support.pgbouncer import Mode, Pooler, pooler
from tests.support.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("impatient")]

Connection = psycopg.Connection[Any]

SECONDS = seconds(3)
MODES: list[Mode] = ["session", "transaction"]
KEYS = 6
DEAF = "Set a direct listen_dsn"


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param  # type: ignore[no-any-return]


async def publish(api: Api, dsn: str, numbers: range) -> None:
    """Publish each number once, in order, whatever becomes of the connection.

    Number n has key n modulo KEYS, and its own key for being published once.
    """
    publisher, left = api.Publisher(), list(numbers)
    while left:
        with contextlib.suppress(psycopg.OperationalError):
            async with api.connect(
                dsn, autocommit=True, prepare_threshold=None, connect_timeout=5
            ) as connection:
                while left:
                    number = left[0]
                    options = {"key": str(number % KEYS), "dedup_key": str(number)}
                    await maybe_await(publisher.publish(connection, "t", number, **options))
                    left.pop(0)
                    await asyncio.sleep(0)
        await asyncio.sleep(0.02)


def check(numbers: list[int], published: int) -> None:
    """Each was handled once, and of a key in order."""
    assert sorted(numbers) == list(range(published))
    for key in range(KEYS):
        of_key = [number for number in numbers if number % KEYS == key]
        assert of_key == sorted(of_key)


@pytest.mark.parametrize("listening", ["direct", "through it"])
async def test_through_a_pooler(
    api: Api,
    dsn: str,
    conn: Connection,
    mode: Mode,
    listening: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaf = mode == "transaction" and listening == "through it"
    seen = Recorder()
    with pooler(dsn, mode) as between:
        listen_dsn = dsn if listening == "direct" else between.dsn
        options = {"listen_dsn": listen_dsn, "poll_interval": 30 if deaf else None, "batch_size": 7}
        one, two = (api.consumer(between.dsn, **options) for _ in range(2))
        async with running(one, seen, concurrency=3), running(two, seen, concurrency=3):
            if deaf:
                await wait_until(lambda: DEAF in caplog.text)
            for first in (0, 40, 80):
                if not deaf:
                    await asleep(one)
                    await asleep(two)
                await publish(api, between.dsn, range(first, first + 40))
                await wait_until(lambda first=first: len(seen.ids) >= first + 40)
                await wait_until(lambda: outstanding(conn) == 0)
            prepares = [
                consumer._queries._claiming._connection.prepare_threshold is not None
                for consumer in (one, two)
            ]
    check([message.payload for message in seen.messages], 120)
    assert caplog.text.count(DEAF) == (1 if deaf else 0)
    # A session of the pooler's own is as good as a direct one.
    assert any(prepares) == (mode == "session" and listening == "through it")


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 110)
async def test_killed_and_started_again(
    api: Api, dsn: str, conn: Connection, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    conn.execute("CREATE TABLE handled (n bigserial, number int)")
    record = "INSERT INTO handled (number) VALUES (%s)"

    async def handle(message: Any) -> None:
        await record_in_transaction(message, record)

    published = 0
    with pooler(dsn, mode) as between:
        poll = 30 if mode == "transaction" else None
        options = {
            "poll_interval": poll,
            "batch_size": 5,
            "lease": 2,
            "retry": dn.RetryPolicy(base=0.1),
        }
        one, two = (api.consumer(between.dsn, **options) for _ in range(2))
        async with running(one, handle, concurrency=2), running(two, handle, concurrency=2):
            if mode == "transaction":  # known before the pooler goes: then it never answers in time
                await wait_until(lambda: DEAF in caplog.text, 60)
            began = time.monotonic()
            while published == 0 or time.monotonic() - began < SECONDS:
                publishing = asyncio.ensure_future(
                    publish(api, between.dsn, range(published, published + 60))
                )
                published += 60
                await handled_beyond(conn, published - 50)
                await restart(between)
                await publishing
            await wait_until(lambda: outstanding(conn) == 0, 60)
    rows = conn.execute("SELECT number FROM handled ORDER BY n").fetchall()
    check([number for (number,) in rows], published)
    assert caplog.text.count(DEAF) == (1 if mode == "transaction" else 0)


async def handled_beyond(conn: Connection, number: int) -> None:
    query = "SELECT count(*) FROM handled"
    await wait_until(lambda: (conn.execute(query).fetchone() or (0,))[0] >= number, 60)


async def restart(between: Pooler) -> None:
    between.kill()
    await asyncio.sleep(0.05)  # some of them try meanwhile
    await in_thread(between.start)


async def test_statements_that_cannot_be_prepared_after_all(
    api: Api, dsn: str, conn: Connection
) -> None:
    """As where a pooler was put in between, or turned to transaction mode, under a consumer."""
    seen = Recorder()
    with pooler(dsn, "transaction") as between:
        consumer = api.consumer(between.dsn, listen_dsn=dsn, batch_size=3)
        async with running(consumer, seen):
            for first in (0, 30, 60):
                consumer._queries._claiming.direct()
                # Sessions change hands while many are in use.
                await asyncio.gather(
                    *(
                        publish(api, between.dsn, range(n, n + 5))
                        for n in range(first, first + 30, 5)
                    )
                )
            await wait_until(lambda: outstanding(conn) == 0)
    assert sorted(message.payload for message in seen.messages) == list(range(90))


async def test_planted_no_error_is_taken_for_hearing(
    api: Api, dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believe(self: Any) -> None:
        self.state.deaf, self.state.hears = False, True
        for subscription in list(self._subscriptions):
            subscription.wake()

    async def abelieve(self: Any) -> None:
        believe(self)

    monkeypatch.setattr(async_listener.AsyncListener, "_check_hearing", abelieve)
    monkeypatch.setattr(sync_listener.Listener, "_check_hearing", believe)
    seen = Recorder()
    with pooler(dsn, "transaction") as between:
        consumer = api.consumer(between.dsn)
        async with running(consumer, seen):
            await asleep(consumer)
            send(conn, [1])
            with pytest.raises(AssertionError):
                await wait_until(lambda: seen.ids, 2)
