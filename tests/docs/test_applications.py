"""The order service and the price cache do what they say; the live page's test is in tests/web."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify import testing
from tests.support.brokers import free_port
from tests.support.examples import EXAMPLES, Program, left, loaded, query, started
from tests.support.wait import eventually, wait_until


@contextmanager
def application(name: str, dsn: str, port: int) -> Iterator[tuple[Program, httpx.Client]]:
    """An application, started by its one command, once it answers."""
    with (
        pytest.MonkeyPatch.context() as patch,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        patch.setenv("PORT", str(port))
        with started(sys.executable, EXAMPLES / f"{name}.py", dsn=dsn) as program:

            def answers() -> bool:
                assert program.process.poll() is None, [program.line() for _ in range(10)]
                try:
                    return client.get("/ready").status_code in {200, 404}
                except httpx.TransportError:
                    return False

            eventually(answers)
            yield program, client


# The order service


async def order(client: httpx.AsyncClient, count: int) -> int:
    wanted = {"customer": "ann", "item": "tea", "count": count}
    created = await client.post("/orders", json=wanted)
    assert created.status_code == 201
    return int(created.json()["id"])


async def until(client: httpx.AsyncClient, path: str, **wanted: object) -> None:
    """Wait until an answer has these values."""

    async def it_has_them() -> bool:
        return wanted.items() <= (await client.get(path)).json().items()

    await wait_until(it_has_them)


async def test_orders(dsn: str) -> None:
    with loaded("order_service", dsn) as shop:
        transport = httpx.ASGITransport(app=shop.app)
        async with (
            shop.app.router.lifespan_context(shop.app),
            httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
        ):
            first = await order(client, 60)
            await until(client, f"/orders/{first}", item="tea", count=60, reserved=True)
            await until(client, "/accounts/ann", owes=240)
            unknown = await client.post("/orders", json={"customer": "b", "item": "x", "count": 1})
            assert unknown.status_code == 404
            assert (await client.get("/ready")).json() == {"ready": True, "why": []}
            async with shop.new_session() as work:
                placed = shop.OrderPlaced(order_id=first, customer="ann", price=240)
                await testing.assert_published_async(work, shop.orders, payload=placed, count=1)

            # More than there is: a dead letter, until an operator redrives it.
            second = await order(client, 50)
            await until(client, "/accounts/ann", owes=440)
            await wait_until(lambda: left(dsn, "stock")[0][3] == 1)
            letters = await client.get("/queue/dead-letters")
            assert "50 tea ordered, 40 there" in letters.text
            assert (await client.put("/stock/tea?count=50")).status_code == 200
            with psycopg.connect(dsn) as connection:
                assert dn.Admin().redrive(connection, "stock", everything=True) == 1
            await until(client, f"/orders/{second}", reserved=True)
    assert query(dsn, "SELECT count FROM stock WHERE item = 'tea'") == [(0,)]
    assert left(dsn, "stock") == left(dsn, "accounts") == [(0, 0, 0, 0)]


def test_orders_need_a_migrated_database(empty_dsn: str) -> None:
    with loaded("order_service", empty_dsn) as shop:

        async def start() -> None:
            try:
                async with shop.app.router.lifespan_context(shop.app):
                    pass
            finally:
                await shop.engine.dispose()

        with pytest.raises(dn.errors.SchemaMissing):
            asyncio.run(start())


@pytest.mark.slow
@pytest.mark.server
def test_each_order_counts_once_whatever_is_killed(empty_dsn: str) -> None:
    dsn, port = empty_dsn, free_port()

    def handled() -> int:
        taken, owed = query(
            dsn,
            "SELECT 100 - count FROM stock WHERE item = 'tea' "
            "UNION ALL SELECT coalesce(sum(owes), 0) / 4 FROM customer_account",
        )
        return int(taken[0] + owed[0])

    with application("order_service", dsn, port) as (program, client):
        for n in range(40):
            wanted = {"customer": f"c{n % 3}", "item": "tea", "count": 1}
            assert client.post("/orders", json=wanted).status_code == 201
        eventually(lambda: handled() > 10)
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    # The leases of the one killed would run out in 30 seconds.
    query(dsn, "UPDATE durable_notify.lease SET deadline = clock_timestamp() RETURNING 1")
    with application("order_service", dsn, port):
        eventually(lambda: left(dsn, "stock") == left(dsn, "accounts") == [(0, 0, 0, 0)])
    assert query(dsn, "SELECT count FROM stock WHERE item = 'tea'") == [(60,)]
    assert query(dsn, "SELECT owes FROM customer_account ORDER BY customer") == [
        (14 * 4,), (13 * 4,), (13 * 4,),
    ]  # fmt: skip
    assert query(dsn, "SELECT count(*) FROM customer_order WHERE reserved") == [(40,)]


# The price cache


@pytest.mark.slow
@pytest.mark.server
def test_each_cache_has_what_the_table_has(empty_dsn: str) -> None:
    dsn, ports = empty_dsn, (free_port(), free_port())

    def prices(client: httpx.Client) -> dict[str, float]:
        answers = {item: client.get(f"/prices/{item}") for item in ("apple", "pear", "fig")}
        return {k: a.json()["price"] for k, a in answers.items() if a.status_code == 200}

    with application("price_cache", dsn, ports[0]) as (_, one):
        for item, price in (("apple", 1), ("pear", 2), ("apple", 3)):
            assert one.put(f"/prices/{item}", json={"price": price}).status_code == 204
        eventually(lambda: prices(one) == {"apple": 3, "pear": 2})
        with psycopg.connect(dsn) as late:  # it commits last
            late.execute("UPDATE price SET amount = 4 WHERE item = 'apple'")
            with application("price_cache", dsn, ports[1]) as (_, other):
                assert prices(other) == {"apple": 3, "pear": 2}, "from its first answer on"
                with psycopg.connect(dsn) as connection:  # as from psql
                    connection.execute("DELETE FROM price WHERE item = 'pear'")
                other.put("/prices/fig", json={"price": 5})
                late.commit()
                for client in (one, other):
                    eventually(lambda: prices(client) == {"apple": 4, "fig": 5})  # noqa: B023


async def test_a_cache_that_does_not_follow_does_not_answer(dsn: str) -> None:
    with loaded("price_cache", dsn) as module:
        await asyncio.to_thread(module.prepare)
        async with module.cache.running():
            assert module.cache.get("apple") is None
        await asyncio.sleep(0)  # its task ends
        with pytest.raises(RuntimeError, match="does not follow"):
            module.cache.get("apple")
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.Error, match="key"):
        # Its message would have no key.
        connection.execute("TRUNCATE price")
