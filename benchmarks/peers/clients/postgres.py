"""What the peers on PostgreSQL have in common. Each measurement has a new database."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

import psycopg

from benchmarks.peers.base import Peer


class PostgresPeer(Peer):
    """A peer whose address is a libpq URI."""

    server: ClassVar[str] = "postgres"

    async def settle(self) -> None:
        """What autovacuum would have done by the time a backlog is that long."""
        async with await psycopg.AsyncConnection.connect(
            self.address, autocommit=True
        ) as connection:
            await connection.execute("VACUUM (ANALYZE)")


async def committed(commit: Callable[[], Awaitable[object]]) -> tuple[int, int]:
    """Commit; return when it was sent and when it was confirmed."""
    before = time.monotonic_ns()
    await commit()
    return before, time.monotonic_ns()
