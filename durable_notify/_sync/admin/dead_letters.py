# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Dead letters: listed, redelivered, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._core import sql
from ...models import DeadLetter
from ...topics import check_group
from ..database.callers import fetch_alone
from .rows import chosen, content, group_or_all

if TYPE_CHECKING:
    from typing import Unpack

    from ...models import DeadLetterFilter
    from ..database.callers import Publishable

__all__ = ["DeadLetterAdmin"]


class DeadLetterAdmin:
    """The part of ``Admin`` for dead letters."""

    def dead_letters(
        self,
        connection: Publishable,
        group: str | None = None,
        *,
        limit: int | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> list[DeadLetter]:
        """Return the dead letters of one group or of all, by group, topic and id.

        Args:
            limit: the most to return.
            conditions: all of them must match (``DeadLetterFilter``).

        Raises:
            UnknownGroup: there is no group of this name.
        """
        params = (group_or_all(group), *chosen(conditions), limit)
        rows = fetch_alone(connection, sql.DEAD_LETTERS, params)
        return [DeadLetter(*content(row)) for row in rows]

    def redrive(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> int:
        """Redeliver dead letters to the group that gave them up, and return how many.

        Give conditions, of which all must match, or ``everything``. Each is delivered as a first
        attempt. In a group that keeps order, later messages of its key wait for it. The audit
        records the role, the time and ``why``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
            MessageNotFound: retention has removed one of them; nothing is redelivered.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((fetch_alone(connection, sql.REDRIVE, params))[0][0])

    def discard(
        self,
        connection: Publishable,
        group: str,
        *,
        everything: bool = False,
        why: str | None = None,
        **conditions: Unpack[DeadLetterFilter],
    ) -> int:
        """Delete dead letters of a group, and return how many; select them as for ``redrive``.

        Raises:
            InvalidArgument: neither a condition nor ``everything`` was given.
            UnknownGroup: there is no group of this name.
        """
        params = (check_group(group), *chosen(conditions), everything, why)
        return int((fetch_alone(connection, sql.DISCARD, params))[0][0])
