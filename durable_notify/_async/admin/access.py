"""Access: what roles of the database may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._core import sql
from ...models import AccessGrant
from ...topics import check_topics
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...topics import TopicName
    from ..database.callers import Publishable

__all__ = ["AsyncAccessAdmin"]


class AsyncAccessAdmin:
    """The part of ``AsyncAdmin`` for grants."""

    async def grant(
        self,
        connection: Publishable,
        role: str,
        action: str,
        topics: Iterable[TopicName] = (),
        *,
        group: str | None = None,
    ) -> None:
        """Grant an action to a database role and its members. For the owner of the schema.

        Args:
            role: the name of the role.
            action: ``"publish"``, ``"consume"`` or ``"read"``, for some topics; ``"observe"``: see
                status, audit and dead letters of all groups; ``"insert"``: run its own INSERT
                statements, for any topic; ``"maintain"``: run maintenance, except for the archive.
            topics: topics, or patterns of topics.
            group: the group in which it may consume, and which it may manage.

        Raises:
            InvalidArgument: there is no such role, or the arguments contradict each other.
                Nothing has changed.
        """
        await fetch_alone(connection, sql.GRANT_ACCESS, (role, action, _patterns(topics), group))

    async def revoke(
        self,
        connection: Publishable,
        role: str,
        action: str | None = None,
        topics: Iterable[TopicName] = (),
        *,
        group: str | None = None,
    ) -> int:
        """Revoke all grants that match the arguments; return how many there were.

        Give patterns as they were granted. For the owner of the schema.

        Raises:
            InvalidArgument: there is no such role.
        """
        params = (role, action, _patterns(topics), group)
        return int((await fetch_alone(connection, sql.REVOKE_ACCESS, params))[0][0])

    async def grants(self, connection: Publishable) -> list[AccessGrant]:
        """Return all grants, by role. For the owner of the schema."""
        return [AccessGrant(*row) for row in await fetch_alone(connection, sql.ACCESS, ())]


def _patterns(topics: Iterable[TopicName]) -> list[str] | None:
    """Return checked topics or patterns, None if there are none."""
    return list(check_topics(topics)) if topics else None
