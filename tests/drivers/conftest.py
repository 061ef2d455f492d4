"""One database for all tests of a module; each test has a topic and a group of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.drivers.kits import KITS, Kit
from tests.support.missing import slow_but
from tests.support.postgres import Postgres

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def dsn(server: Postgres, template: str) -> Iterator[str]:
    with server.database(template) as name:
        yield server.dsn(name)


@pytest.fixture(scope="module")
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A look at what is committed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def topic() -> str:
    return f"topic{next(_numbers)}"


#: A Session differs from a Connection in how it is found, and how its transactions begin.
_DIFFERENT = [kit for kit in KITS if "session" not in kit.name]


@pytest.fixture(params=slow_but(KITS, *_DIFFERENT), ids=repr)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each kind of connection in turn."""
    return request.param  # type: ignore[no-any-return]
