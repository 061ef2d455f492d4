"""What the library does with a program's connection, whatever its driver."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, LiteralString

from ..errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    Params = Sequence[Any]
    Rows = list[tuple[Any, ...]]

__all__ = ["BEGIN", "AsyncCaller", "Caller", "checked", "plain_rows"]

#: What some of our statements need; see ``alone``.
BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"


class _Session:
    """The state of a session, as the driver's own connection knows it without asking the server."""

    #: The driver's connection, under whatever wraps it.
    raw: Any

    def parameter(self, name: LiteralString) -> str | None:
        """Return a parameter that the server reports to every client; None: not known here."""
        raw = self.raw
        if raw.is_closed() if hasattr(raw, "is_closed") else getattr(raw, "closed", False):
            return None  # running a statement fails, with the error that the program expects
        if hasattr(raw, "get_settings"):  # asyncpg
            value = getattr(raw.get_settings(), name, None)
        elif hasattr(raw, "parameter_statuses"):  # pg8000
            value = raw.parameter_statuses.get(name)
        else:
            value = raw.info.parameter_status(name) if hasattr(raw, "info") else None
        return None if value is None else str(value)

    def user(self) -> str:
        """Return the role of the session."""
        user = getattr(getattr(self.raw, "info", None), "user", None)
        return user or self.parameter("session_authorization") or "ROLE"

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, or has failed and must be rolled back."""
        raw = self.raw
        if hasattr(raw, "is_in_transaction"):  # asyncpg
            return bool(raw.is_in_transaction())
        if hasattr(raw, "info"):
            return bool(raw.info.transaction_status)  # idle is 0
        return bool(getattr(raw, "_in_transaction", True))  # pg8000

    def commits_each(self) -> bool:
        """Return whether a statement that runs now commits by itself."""
        raise NotImplementedError


class Caller(_Session, ABC):
    """Runs this library's statements on a program's connection, in its transaction."""

    @abstractmethod
    def run(self, query: LiteralString, params: Params) -> Rows:
        """Run a statement; ``%s`` in it stands for a value. Errors are those of the driver."""

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Run the body in a READ COMMITTED transaction of its own if the caller has none."""
        return self._begun() if self.commits_each() else contextlib.nullcontext()

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        try:
            self.run(BEGIN, ())
            yield
            self.run("COMMIT", ())
        except BaseException:
            with contextlib.suppress(Exception):  # the first error says more
                self.run("ROLLBACK", ())
            raise


class AsyncCaller(_Session, ABC):
    """The same for asyncio."""

    @abstractmethod
    async def run(self, query: LiteralString, params: Params) -> Rows:
        """Run a statement; ``%s`` in it stands for a value. Errors are those of the driver."""

    def alone(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Run the body in a READ COMMITTED transaction of its own if the caller has none."""
        return self._begun() if self.commits_each() else contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        try:
            # Trap: a statement that was cancelled may have run, and one for the end may not.
            await self.run(BEGIN, ())
            yield
            await self.run("COMMIT", ())
        except BaseException:
            with contextlib.suppress(Exception):  # the first error says more
                await self.run("ROLLBACK", ())
            raise


def checked(params: Params) -> Params:
    """Return the values of a statement; refuse text that PostgreSQL cannot hold.

    Trap: some drivers send it, and the transaction fails.
    """
    for value in params:
        for text in value if isinstance(value, list) else (value,):
            if isinstance(text, str) and "\x00" in text:
                raise InvalidArgument("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return params


def plain_rows(rows: Iterable[Iterable[Any]]) -> Rows:
    """Return rows as tuples, with bytes as bytes."""
    return [
        tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
        for row in rows
    ]
