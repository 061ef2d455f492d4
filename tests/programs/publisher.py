"""A publisher as a process of its own, to be killed; see tests/faults/test_crashes.py.

It publishes in transactions of all sorts, of which some roll back, beside rows of the
application's own in the table ``business``: one for each message, in the same transaction. Their
primary key is the message's number, so that the database itself can be asked what has committed.
Each end of a transaction it knows of is printed, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from typing import Any

import psycopg

from tests.support.api import Api, maybe_await

DDL = "CREATE TABLE business (number bigint PRIMARY KEY, message_id bigint NOT NULL)"


def say(what: str, numbers: list[int]) -> None:
    print(json.dumps({"what": what, "numbers": numbers}), flush=True)


async def publish_for_ever(api: Api, dsn: str, seed: str, first: int) -> None:
    rng = random.Random(seed)
    number = first
    publisher = api.Publisher()
    while True:
        with contextlib.suppress(psycopg.OperationalError, psycopg.InterfaceError):
            async with api.connect(dsn, connect_timeout=5) as connection:
                while True:
                    numbers = list(range(number, number := number + rng.choice([1, 1, 2, 5])))
                    await one_transaction(connection, publisher, numbers, rng)
        await asyncio.sleep(0.02)  # the server is gone; not a moment to be busy


async def one_transaction(
    connection: Any, publisher: Any, numbers: list[int], rng: random.Random
) -> None:
    insert = "INSERT INTO business SELECT * FROM unnest(%s::bigint[], %s::bigint[])"
    ids = await maybe_await(publisher.publish_many(connection, "t", numbers))
    await maybe_await(connection.execute(insert, [numbers, ids]))
    await asyncio.sleep(rng.random() * 0.1)
    if rng.random() < 0.25:
        await maybe_await(connection.rollback())
        say("rolled back", numbers)
        return
    try:
        await maybe_await(connection.commit())
    except psycopg.OperationalError:
        say("unknown", numbers)
        raise
    say("committed", numbers)


def main() -> None:
    api, dsn, seed, first = sys.argv[1:]
    asyncio.run(publish_for_ever(Api(api), dsn, seed, int(first)))


if __name__ == "__main__":
    main()
