"""Redis Streams, with redis-py: the extra ``redis``.

A batch is one transaction (MULTI, EXEC), so that all of it arrives, or nothing. A mapping has
``stream`` (by default the topic) and ``maxlen``: about how many entries the stream keeps; 0, the
default, means all.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

from ..errors import BrokerUnavailable, InvalidArgument
from .broker import (
    SENT,
    UNCARRIED,
    Rejected,
    Sent,
    Unconfirmed,
    client_of,
    error_text,
    kind_of,
    url_parts,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .broker import BrokerMessage, Outcome, Report
    from .routes import Routes

__all__ = ["Relay"]

#: How long to wait for an answer, in seconds.
PATIENCE = 10.0
#: How large the payloads of one transaction may be together; a single one may be larger.
MAX_TRANSACTION = 8 * 1024 * 1024
#: The largest value that Redis accepts, by default.
BULK = 512 * 1024 * 1024
#: Codes by which Redis will never accept a message. After any other code, the message waits.
FINAL = ("WRONGTYPE",)
#: Codes by which the URL is wrong, at the start.
NO_ENTRY = ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED")


_MULTI, _EXEC = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n"


class _Broke(Unconfirmed):
    """The connection broke, so that no other message can be sent either."""


class Relay:
    """Sends messages to Redis."""

    fields: Mapping[str, str] = {"stream": "{topic}", "maxlen": "0"}

    def __init__(self, url: str) -> None:
        aio, self._errors, backoff, retry = client_of(
            "redis", "redis.asyncio", "redis.exceptions", "redis.backoff", "redis.asyncio.retry"
        )
        url_parts(url)
        try:
            self._client = aio.from_url(
                url,
                # Trap: with a socket_timeout, the client starts a timer for each answer.
                socket_timeout=None,
                socket_connect_timeout=PATIENCE,
                # Trap: if the client retried a transaction whose answer was lost, the messages
                # would silently arrive twice.
                retry=retry.Retry(backoff.NoBackoff(), 0),
            )
        except ValueError as error:
            raise InvalidArgument(
                "the URL of Redis cannot work: write redis://:PASSWORD@HOST:6379/0"
            ) from error
        self._bulk = BULK

    def check(self, field: str, template: str) -> None:
        """Raise InvalidArgument unless ``maxlen`` is a number."""
        if field == "maxlen" and not template.isdecimal():
            raise InvalidArgument(f"maxlen must be a number of entries, not {template!r}")

    async def connect(self, routes: Routes) -> None:
        """Connect, and check that existing keys of the mapping are streams."""
        errors = self._errors
        try:
            async with asyncio.timeout(PATIENCE):
                await self._look(routes)
        except errors.AuthenticationError as error:
            raise InvalidArgument(f"Redis says: {error_text(error)}. Correct the URL") from error
        except (errors.ConnectionError, errors.TimeoutError, TimeoutError) as error:
            raise BrokerUnavailable(f"Redis cannot be reached: {error_text(error)}") from error
        except errors.ResponseError as error:
            if _code(error) in NO_ENTRY:
                raise InvalidArgument(f"Redis says: {_said(error)}. Correct the URL") from error
            raise BrokerUnavailable(f"Redis says: {_said(error)}") from error

    async def _look(self, routes: Routes) -> None:
        await self._client.ping()
        for stream in sorted(routes.fixed("stream")):
            kind = (await self._client.type(stream)).decode()
            if kind not in ("none", "stream"):
                raise InvalidArgument(f"Redis says: {stream!r} is a {kind}, not a stream")
        async with self._client.pipeline(transaction=True) as pipe:
            # Trap: if Redis refuses MULTI, it still executes what follows, at each attempt.
            await pipe.ping().execute()
        try:
            found = await self._client.config_get("proto-max-bulk-len")
            self._bulk = int(found.get("proto-max-bulk-len", BULK))
        except self._errors.ResponseError as error:
            if _code(error) not in ("ERR", "NOPERM"):
                raise
            self._bulk = BULK  # a managed Redis does not reveal it

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages, in transactions one after the other."""
        outcomes: list[Outcome] = []
        for some in _parts(messages):
            if outcomes and isinstance(outcomes[-1], Unconfirmed):
                outcomes += [outcomes[-1]] * len(some)  # in their order
                continue
            for outcome in await self._transaction(some):
                if not isinstance(outcome, Unconfirmed):
                    report(len(outcomes), outcome)
                outcomes.append(outcome)
        return outcomes

    async def _transaction(self, messages: Sequence[BrokerMessage]) -> list[Outcome]:
        errors = self._errors
        outcomes: list[Outcome] = [self._flaw(message) or SENT for message in messages]
        indexes = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Sent)]
        if not indexes:
            return outcomes
        failed: Outcome
        try:
            commands = [_xadd(messages[index]) for index in indexes]
            async with asyncio.timeout(PATIENCE):
                results = await self._execute(commands)
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            failed = _Broke(f"the connection to Redis broke: {_said(error)}")
        except (errors.RedisError, *UNCARRIED) as error:  # nothing of it was executed
            failed = self._of_error(error)
            if len(indexes) > 1:
                return await self._one_by_one(messages)
        else:
            for index, result in zip(indexes, results, strict=True):
                if isinstance(result, Exception):
                    outcomes[index] = self._of_error(result)
            return outcomes
        for index in indexes:
            outcomes[index] = failed
        return outcomes

    async def _execute(self, commands: list[bytes]) -> list[Any]:
        """Execute commands in a transaction; return the answer to each, or its error.

        The client's pipelines do the same, at twice the cost.

        Raises:
            ResponseError: Redis has executed none of them.
        """
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command([_MULTI, *commands, _EXEC])
            refused: Exception | None = None
            for _ in range(len(commands) + 1):
                try:
                    await connection.read_response()
                except self._errors.ResponseError as error:
                    refused = refused or error
            try:
                answers: list[Any] = await connection.read_response()
            except self._errors.ResponseError as error:
                raise refused or error from None
            return answers
        finally:
            await pool.release(connection)

    async def _one_by_one(self, messages: Sequence[BrokerMessage]) -> list[Outcome]:
        """Find out which messages Redis refuses, after it refused all of them together."""
        outcomes: list[Outcome] = []
        held: dict[object, Outcome] = {}
        for message in messages:
            if outcomes and isinstance(outcomes[-1], _Broke):
                outcomes.append(outcomes[-1])
            elif message.ordering_key is not None and message.ordering_key in held:
                outcomes.append(held[message.ordering_key])
            else:
                outcomes += await self._transaction([message])
                if isinstance(outcomes[-1], Unconfirmed):
                    held[message.ordering_key] = outcomes[-1]
        return outcomes

    def _of_error(self, error: Exception) -> Outcome:
        if isinstance(error, (self._errors.DataError, *UNCARRIED)):
            return Rejected(f"Redis cannot carry it: {kind_of(error)}")
        words = f"Redis says: {_said(error)}"
        return Rejected(words) if _code(error) in FINAL else Unconfirmed(words)

    def _flaw(self, message: BrokerMessage) -> Outcome | None:
        size = len(message.body)
        if size <= self._bulk:
            return None
        return Rejected(
            f"Redis says: Protocol error: invalid bulk length; it has {size} bytes, and "
            f"proto-max-bulk-len is {self._bulk}"
        )


def _code(error: Exception) -> str:
    """Return the first word of Redis's error, its code. The client leaves some codes out."""
    return getattr(error, "status_code", None) or str(error).partition(" ")[0]


def _said(error: Exception) -> str:
    """Return the text of Redis's error, with its code, and without quotes of a command."""
    text, code = error_text(error), _code(error)
    text = text.partition(", with args beginning with")[0]
    return text if text.startswith(code) else f"{code} {text}"


def _xadd(message: BrokerMessage) -> bytes:
    """Return the command that adds an entry, as Redis reads it.

    The client would look at each of its parts, which takes longer than all else here.
    """
    route = message.route
    parts = [b"XADD", route["stream"].encode()]
    if int(route["maxlen"]):
        parts += (b"MAXLEN", b"~", route["maxlen"].encode())
    parts += (
        b"*",
        b"id", message.id.encode(),
        b"topic", message.topic.encode(),
        b"payload", message.body,
        b"content-type", message.content_type.encode(),
        b"headers", _as_json(message.headers).encode() if message.headers else b"{}",
        b"published_at", message.published_at.astimezone(UTC).isoformat().encode(),
    )  # fmt: skip
    if message.key is not None:
        parts += (b"key", message.key.encode())
    return b"*%d\r\n%b" % (len(parts), b"".join([b"$%d\r\n%b\r\n" % (len(p), p) for p in parts]))


_as_json = json.JSONEncoder(ensure_ascii=False).encode


def _parts(messages: Sequence[BrokerMessage]) -> Iterator[Sequence[BrokerMessage]]:
    """Divide messages by size, in order."""
    first = size = 0
    for index, message in enumerate(messages):
        if index > first and size + len(message.body) > MAX_TRANSACTION:
            yield messages[first:index]
            first, size = index, 0
        size += len(message.body)
    yield messages[first:]
