"""Small projects to run pytest in."""

from __future__ import annotations

import psycopg2  # noqa: F401 - see project()
import pytest

from tests.support.postgres import Postgres


@pytest.fixture
def project(pytester: pytest.Pytester, server: Postgres, template: str) -> pytest.Pytester:
    """A project whose server is the one of these tests.

    Trap: what a project is first to import is imported again by the next one, and some of
    SQLAlchemy works only once. Migrating the template has imported it.
    """
    pytester.makeini(
        f"[pytest]\ndurable_notify_server = {server.admin_dsn}\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return pytester
