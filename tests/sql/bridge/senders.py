"""Applications that send in threads while a bridge is changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psycopg

from tests.support.wait import eventually


class Sender:
    """Sends "NAME 1", "NAME 2", ... by a statement, a transaction each, until told to stop."""

    def __init__(
        self, name: str, connect: Callable[[], AbstractContextManager[Any]], statement: str
    ) -> None:
        self.name = name
        self.sent = 0
        self.failed: list[psycopg.Error] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=[connect, statement], daemon=True)
        self._thread.start()

    def _run(self, connect: Callable[[], AbstractContextManager[Any]], statement: str) -> None:
        with connect() as connection:
            while not self._stop.is_set():
                try:
                    connection.execute(statement, [f"{self.name} {self.sent + 1}"])
                except psycopg.Error as error:
                    self.failed.append(error)
                else:
                    self.sent += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


def each_continues(senders: list[Sender]) -> None:
    """Wait until each has sent 20 more."""
    reached = [one.sent + 20 for one in senders]
    eventually(lambda: all(one.sent >= n for one, n in zip(senders, reached, strict=True)))


def sent_during(senders: list[Sender], change: Callable[[], None]) -> list[str]:
    """Return what begins and ends while a change is made; what is under way may have begun before."""
    first = [one.sent + 2 for one in senders]
    change()
    return [
        f"{one.name} {n}"
        for one, start in zip(senders, first, strict=True)
        for n in range(start, one.sent + 1)
    ]
