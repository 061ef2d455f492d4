"""Erasure: what is kept of a key, for example of a person, is removed."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from ..._core import sql
from ...errors import InvalidArgument
from ...models import Erasure
from ...topics import check_topics
from ..database.callers import fetch_alone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...topics import TopicName
    from ..database.callers import Publishable

__all__ = ["AsyncErasureAdmin"]

#: What erase_batch() only counts.
_COUNTED = {"leased", "publishers", "archiving"}


class AsyncErasureAdmin:
    """The part of ``AsyncAdmin`` that erases what is kept of a key."""

    async def erase(
        self,
        connection: Publishable,
        key: str,
        *,
        topics: Iterable[TopicName] | None = None,
        dry_run: bool = False,
        why: str | None = None,
    ) -> Erasure:
        """Remove all that is kept of a key's messages, and return how much there was.

        It removes them from the outbox, dead letters, retries and all other tables, in batches;
        archives have an ``erase`` of their own. Give a connection in autocommit mode: each batch
        is a transaction then. In a transaction of yours, consumers receive nothing between the
        first batch and your commit.

        What had committed when it began is gone when it returns. The audit records ``why``, and
        the key's SHA-256. For the owner of the schema.

        Args:
            key: the key of the messages.
            topics: only in these topics or patterns; None: in all.
            dry_run: only count; locks nothing.
            why: recorded in the audit: no personal data.

        Raises:
            InvalidArgument: the key is empty, or the transaction is not READ COMMITTED.
            psycopg.errors.LockNotAvailable: an open transaction keeps a copy of such messages; it
                waited for 5 seconds. Batches that have committed stay erased; call it again.
        """
        if not isinstance(key, str) or not key:
            raise InvalidArgument(f"the key of the messages to be erased is a text, not {key!r}")
        wanted = None if topics is None else list(check_topics(topics))
        places: Counter[str] = Counter()
        after: tuple[str | None, int | None] = (None, None)
        while True:
            params = (key, wanted, *after, dry_run, why)
            topic, upto_id, found = (await fetch_alone(connection, sql.ERASE_BATCH, params))[0]
            places.update(json.loads(found))
            if topic is None:
                counted = {name: places.pop(name) for name in _COUNTED & places.keys()}
                return Erasure(removed=dict(places), counted=counted)
            after = (topic, upto_id)
