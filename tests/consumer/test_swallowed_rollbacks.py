"""A transaction of the message rolled back, and the handler returned all the same."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.consumer.test_handlers import consume
from tests.support.api import Api
from tests.support.observe import dead_letters, outstanding, send, value

Connection = psycopg.Connection[Any]


def fail() -> None:
    raise ZeroDivisionError


async def swallowed(api: Api, message: Any, how: str) -> None:
    if api.is_async:
        if how == "Rollback":
            async with message.transaction():
                raise psycopg.Rollback
        try:
            async with message.transaction() as connection:
                if how == "after ack":
                    await message.ack(connection)
                fail()
        except ZeroDivisionError:
            pass


def swallowed_now(message: Any, how: str) -> None:
    if how == "Rollback":
        with message.transaction():
            raise psycopg.Rollback
        return
    try:
        with message.transaction() as connection:
            if how == "after ack":
                message.ack(connection)
            fail()
    except ZeroDivisionError:
        pass


@pytest.mark.parametrize("how", ["before ack", "after ack", "Rollback"])
async def test_a_rollback_that_is_swallowed(
    api: Api, dsn: str, conn: Connection, way: str, how: str
) -> None:
    """The handler returns; nothing it wrote is there: the message is redelivered, by the rules."""
    send(conn, [1])

    def handle_now(argument: Any) -> None:
        swallowed_now(argument[0] if isinstance(argument, list) else argument, how)

    async def handle(argument: Any) -> None:
        await swallowed(api, argument[0] if isinstance(argument, list) else argument, how)

    await consume(api, dsn, way, handle if api.is_async else handle_now)
    ((_, attempt, _),) = dead_letters(conn)
    assert attempt == 1


async def test_a_transaction_tried_twice(api: Api, dsn: str, conn: Connection, way: str) -> None:
    """The second acknowledges as well: what the first had said was rolled back with it."""
    conn.execute("CREATE TABLE effect (id int)")
    send(conn, [1])
    tries = []

    def fail_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ZeroDivisionError

    async def handle(argument: Any) -> None:
        message = argument[0] if isinstance(argument, list) else argument
        for _ in range(2):
            try:
                async with message.transaction() as connection:
                    await connection.execute("INSERT INTO effect VALUES (1)")
                    await message.ack(connection)
                    fail_once()
            except ZeroDivisionError:
                continue
            return

    def handle_now(argument: Any) -> None:
        message = argument[0] if isinstance(argument, list) else argument
        for _ in range(2):
            try:
                with message.transaction() as connection:
                    connection.execute("INSERT INTO effect VALUES (1)")
                    if len(tries) == 0:
                        message.ack(connection)
                    fail_once()
            except ZeroDivisionError:
                continue
            return

    await consume(api, dsn, way, handle if api.is_async else handle_now)
    assert value(conn, "SELECT count(*) FROM effect") == 1
    assert (outstanding(conn), dead_letters(conn)) == (0, [])


async def test_the_transaction_of_one_that_was_sent_back(
    api: Api, dsn: str, conn: Connection
) -> None:
    """Nothing of its body stays: the message is redelivered, behind the one before it."""
    conn.execute("CREATE TABLE effect (id int)")
    dn.Publisher().publish_many(conn, "t", [dn.NewMessage(n, key="k") for n in range(2)])
    refused = []

    async def handle(batch: list[Any]) -> None:
        if len(batch) == 2 and batch[0].attempt == 1:
            await batch[0].retry(0)
            try:
                async with batch[1].transaction() as connection:
                    await connection.execute("INSERT INTO effect VALUES (1)")
            except dn.errors.AlreadySettled as error:
                refused.append(str(error))

    def handle_now(batch: list[Any]) -> None:
        if len(batch) == 2 and batch[0].attempt == 1:
            batch[0].retry(0)
            try:
                with batch[1].transaction() as connection:
                    connection.execute("INSERT INTO effect VALUES (1)")
            except dn.errors.AlreadySettled as error:
                refused.append(str(error))

    options = {"retry": dn.RetryPolicy(max_attempts=3)}
    await consume(api, dsn, "run_batches", handle if api.is_async else handle_now, **options)
    assert len(refused) == 1
    assert "redelivered" in refused[0]
    assert value(conn, "SELECT count(*) FROM effect") == 0
    assert outstanding(conn) == 0
