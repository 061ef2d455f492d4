"""A reader without a group, in SQL: it keeps its place and reads on from there."""

from __future__ import annotations

from typing import Any

from tests.support.schedule import Session

READ = """
    SELECT window_s0::text, window_h0, window_s1::text, window_h1, id
      FROM durable_notify.read('t', %s::pg_snapshot, %s, %s::pg_snapshot, %s, %s, %s)"""


class SqlReader:
    """Reads topic t by a session, from the beginning or from a place it is given."""

    def __init__(self, session: Session, s0: str = "3:3:", h0: int = 0) -> None:
        self.session = session
        self.place: tuple[Any, ...] = (s0, h0, None, None, 0)

    def read(self, most: int = 500) -> list[int]:
        """The ids that follow the place, which moves on."""
        found = []
        for *window, message_id in self.session.run(READ, *self.place, most):
            found.append(message_id)
            self.place = (*window, message_id)
        return found

    def rest(self, most: int = 500) -> list[int]:
        """Everything that follows."""
        found = []
        while batch := self.read(most):
            found += batch
        return found
