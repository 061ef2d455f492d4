"""Operator events: what happens to groups is published, as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._core import sql
from ...models import OperatorEvents
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from ..database.callers import Publishable

__all__ = ["AsyncOperatorEventsAdmin"]


class AsyncOperatorEventsAdmin:
    """The part of ``AsyncAdmin`` that switches operator events on and off."""

    async def set_operator_events(
        self,
        connection: Publishable,
        kind: str,
        *,
        group: str | None = None,
        enabled: bool = True,
    ) -> bool:
        """Publish operator events of a kind from now on, or no more; return whether that changed.

        They are messages of the topic ``durable_notify.KIND``, published in the transaction of
        what they tell. Groups that consume such topics are exempt: about them nothing is
        published. For the owner of the schema.

        Args:
            kind: ``"dead_letter"``, ``"loss"``, ``"group_failing"`` or ``"retention_alarm"``.
            group: of this group; None: of all.
            enabled: False switches them off.

        Raises:
            InvalidArgument: there is no such kind; or it is on for all, and cannot be switched
                off for one.
            UnknownGroup: there is no group of this name.
        """
        params = (kind, group, enabled)
        return bool((await fetch_alone(connection, sql.SET_OPERATOR_EVENTS, params))[0][0])

    async def operator_events(self, connection: Publishable) -> list[OperatorEvents]:
        """Return which kinds are published, and of which groups. For the owner of the schema."""
        rows = await fetch_alone(connection, sql.OPERATOR_EVENTS, ())
        return [OperatorEvents(*row) for row in rows]
