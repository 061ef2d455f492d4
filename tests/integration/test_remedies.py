"""Errors lead to the remedy: each says what to do, in words that can be carried out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from durable_notify._core import allowing
from tests.security.decisions import MAY
from tests.support.halves import Half, go, soon, within
from tests.support.roles import roles

Connection = psycopg.Connection[Any]


@pytest.fixture(params=["async", "sync"])
def half(request: pytest.FixtureRequest) -> Half:
    return Half(request.param)


# A right that is missing


async def test_who_was_granted_nothing_hears_what_to_grant(half: Half, dsn: str) -> None:
    with roles(dsn, {"nobody": []}) as made:
        role = made.names["nobody"]
        login = made.login("nobody")
        async with half.connect(login, autocommit=True) as connection:
            for call, wanted in (
                (half.Publisher().publish(connection, "orders.new", 1), "--publish orders.new"),
                (half.Publisher().publish_many(connection, "a$b", [1]), "--publish 'a$b'"),
                (half.Admin().status(connection), "--observe"),
                (half.Admin().pause(connection, "g"), "--consume TOPIC --group g"),
            ):
                with pytest.raises(errors.InsufficientPrivilege) as error:
                    await go(call) if half.is_async else call()
                assert "permission denied for schema durable_notify" in str(error.value)
                assert f"durable-notify grant {role} {wanted}" in str(error.value)
