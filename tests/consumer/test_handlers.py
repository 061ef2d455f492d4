"""Every kind of callable and every kind of exception, through every way of handling.

A message whose handler did not do its work is never acknowledged; whatever a handler raises, its
consumer continues or ends by it, and has settled the message by the rules.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import types
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify._async.consumer.dispatcher import AsyncDispatcher
from tests.support.api import Api, consume, in_thread
from tests.support.cli import run_process as command
from tests.support.observe import dead_letters, outstanding, send, value
from tests.support.wait import wait_until, with_timeout

Connection = psycopg.Connection[Any]
Handler = Callable[[Any], Any]


# What is called, and does its work or not


def decorated(function: Handler) -> Handler:
    @functools.wraps(function)
    def wrapper(message: Any) -> Any:
        return function(message)

    return wrapper


class Ran:
    """Kinds of handlers, which record that they ran."""

    def __init__(self) -> None:
        self.calls = 0

    def kinds(self) -> dict[str, Handler]:
        return self._plain() | self._coroutines() | self._undone()

    def _plain(self) -> dict[str, Handler]:
        def plain(_message: Any) -> None:
            self.calls += 1

        class Plain:
            def __call__(self, message: Any) -> None:
                plain(message)

            def method(self, message: Any) -> None:
                plain(message)

        return {
            "plain": plain, "plain lambda": lambda m: (plain(m), None)[1], "plain object": Plain(),
            "plain method": Plain().method, "plain partial": functools.partial(plain),
        }  # fmt: skip

    def _coroutines(self) -> dict[str, Handler]:
        async def coroutine(_message: Any) -> None:
            await asyncio.sleep(0)
            self.calls += 1

        @types.coroutine
        def old_coroutine(_message: Any) -> Any:
            self.calls += 1
            yield

        class Awaited:
            async def __call__(self, message: Any) -> None:
                await coroutine(message)

            async def method(self, message: Any) -> None:
                await coroutine(message)

            @staticmethod
            async def static(message: Any) -> None:
                await coroutine(message)

        return {
            "coroutine": coroutine, "coroutine lambda": lambda m: (coroutine(m), None)[0],
            "coroutine object": Awaited(), "coroutine method": Awaited().method,
            "coroutine static": Awaited.static, "coroutine partial": functools.partial(coroutine),
            "coroutine partial twice": functools.partial(functools.partial(coroutine)),
            "coroutine partial object": functools.partial(Awaited()),
            "coroutine decorated": decorated(coroutine),
            "coroutine of a generator": old_coroutine,
        }  # fmt: skip

    def _undone(self) -> dict[str, Handler]:
        def generator(_message: Any) -> Any:
            self.calls += 1
            yield

        async def async_generator(_message: Any) -> Any:
            self.calls += 1
            yield

        async def coroutine(_message: Any) -> None:
            self.calls += 1

        async def returns_coroutine(message: Any) -> Any:
            return coroutine(message)

        class Yields:
            def __call__(self, message: Any) -> Any:
                yield from generator(message)

        return {
            "undone generator": generator, "undone generator lambda": lambda m: (generator(m), None)[0],
            "undone generator object": Yields(), "undone generator decorated": decorated(generator),
            "undone async generator": async_generator,
            "undone async generator partial": functools.partial(async_generator),
            "undone async generator lambda": lambda m: (async_generator(m), None)[0],
            "undone coroutine of a coroutine": returns_coroutine,
            "undone future": lambda _m: concurrent.futures.Future(),
        }  # fmt: skip


async def test_kinds_of_callables(api: Api, dsn: str, conn: Connection, way: str) -> None:
    """A handler that ran acknowledges; one that cannot run is refused at the start, or fails."""

    async def one(name: str) -> tuple[int, str]:
        ran = Ran()
        try:
            topics = [name.replace(" ", ".")]
            await consume(api, dsn, way, ran.kinds()[name], group=name, topics=topics)
        except dn.InvalidArgument as error:
            return ran.calls, str(error)
        return ran.calls, ""

    names = list(Ran().kinds())
    for name in names:
        send(conn, [1], name.replace(" ", "."))
    found = dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
    letters: dict[str, Any] = {}
    for (group,) in conn.execute("SELECT name FROM durable_notify.groups()").fetchall():
        for letter in dn.Admin().dead_letters(conn, group):
            letters[group] = letter
    groups = {name for (name,) in conn.execute("SELECT name FROM durable_notify.groups()")}
    assert outstanding(conn) == 0
    for name, (calls, refused) in found.items():
        runs = name.startswith("plain") or (api.is_async and name.startswith("coroutine"))
        if refused:
            assert not runs, name
            assert "AsyncConsumer" in refused or "yield" in refused
            assert name not in groups
            continue
        assert calls == (1 if runs else 0), name
        assert (name in letters) is not runs, name
        if not runs:
            assert letters[name].error["type"] == "durable_notify.errors.WorkNotDone"
    assert {name for name, (_, refused) in found.items() if refused} >= {
        "undone generator", "undone generator object", "undone async generator partial",
    }  # fmt: skip


@pytest.mark.parametrize("handler", [None, "print", 3])
async def test_no_callables(api: Api, dsn: str, way: str, handler: Any) -> None:
    with pytest.raises(
        dn.InvalidArgument, match="a handler must be a function|there is no handler"
    ):
        await consume(api, dsn, way, handler)


def test_on_the_command_line(dsn: str, conn: Connection, tmp_path: Any) -> None:
    """An async function runs, also within a decorator that is a plain one; a generator is refused."""
    (tmp_path / "kinds_of_handlers.py").write_text(
        "import functools\n"
        "def plain(message): print('ran')\n"
        "async def awaited(message): print('ran')\n"
        "@functools.wraps(awaited)\n"
        "def decorated(message): return awaited(message)\n"
        "def undone(message): yield\n"
    )
    for number, name in enumerate(("plain", "awaited", "decorated", "undone")):
        send(conn, [1], f"t{number}")
        done = command(
            "consume", f"t{number}", "--group", "g", "--until-empty", "--handler",
            f"kinds_of_handlers:{name}", dsn=dsn, PYTHONPATH=str(tmp_path),
        )  # fmt: skip
        if name == "undone":
            assert done.returncode != 0
            assert "yield" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("ran") == 1


async def test_planted_a_result_that_is_not_looked_at(
    dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done of a lambda that returns a generator is not seen by its looks."""
    monkeypatch.setattr(
        "durable_notify._async.consumer.dispatcher.check_done", lambda _result: None
    )
    send(conn, [1])
    ran = Ran()
    await consume(Api("async"), dsn, "run", ran.kinds()["undone generator lambda"])
    assert (ran.calls, outstanding(conn), dead_letters(conn)) == (0, 0, [])


# What handlers raise


class Own(BaseException):
    """As those of gevent, pytest and trio are."""


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Odd(Exception):
    """All that can be looked at is odd."""

    def __str__(self) -> str:
        return "\0\ud800" * 10

    @property
    def __notes__(self) -> Any:
        raise ValueError("no notes")


def caused() -> Exception:
    error = KeyError("k")
    error.__cause__ = Mute()
    return error


FAULTS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: ZeroDivisionError("why"),
    "mute": Mute, "odd": Odd, "caused by a mute one": caused,
    "group": lambda: ExceptionGroup("several", [Mute(), ValueError()]),
    "long": lambda: ValueError("x" * 100_000),
    "SyntaxError": lambda: SyntaxError("bad", ("f", 10**9, -3, "\ud800", None, None)),
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError, "RecursionError": RecursionError,
    "TimeoutError": TimeoutError, "psycopg": psycopg.OperationalError,
    "Rollback": psycopg.Rollback,
    "cancelled future": concurrent.futures.CancelledError,
    "CancelledError": asyncio.CancelledError,
    "SystemExit": lambda: SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit, "own": lambda: Own("why"),
    "group of them": lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), Mute()]),
}  # fmt: skip
#: What ends the consumer: it asks for more than a message.
ENDING = ("SystemExit", "KeyboardInterrupt", "own", "group of them")


def raising(api: Api, manner: str) -> Any:
    """A handler that raises what its messages' payloads name."""

    def messages_of(argument: Any) -> list[Any]:
        return argument if isinstance(argument, list) else [argument]

    def raises(argument: Any) -> None:
        for message in messages_of(argument):
            if message.payload is not None:
                error = FAULTS[message.payload]()
                raise error

    async def araises(argument: Any) -> None:
        raises(argument)

    def in_transaction(argument: Any) -> None:
        with messages_of(argument)[0].transaction():
            raises(argument)

    async def ain_transaction(argument: Any) -> None:
        async with messages_of(argument)[0].transaction():
            raises(argument)

    if manner == "in its transaction":
        return ain_transaction if api.is_async else in_transaction
    return araises if manner == "coroutine" else raises


@pytest.mark.parametrize("manner", ["plain", "coroutine", "in its transaction"])
async def test_kinds_of_exceptions(
    api: Api, dsn: str, conn: Connection, way: str, manner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is given up, as it had one attempt; the others are handled."""
    # One's text cannot be encoded, and so not be sent to pytest by a worker of xdist.
    monkeypatch.setattr(logging.getLogger("durable_notify"), "propagate", False)
    if not api.is_async and manner == "coroutine":
        pytest.skip("handlers of this half are no coroutines")
    names = [name for name in FAULTS if name not in ENDING]
    ids = send(conn, [*names, None])
    await consume(api, dsn, way, raising(api, manner), size=1)
    assert [letter[0] for letter in dead_letters(conn)] == ids[:-1]
    assert outstanding(conn) == 0


@pytest.mark.parametrize("name", ENDING)
async def test_exceptions_that_end_it(
    api: Api, dsn: str, conn: Connection, way: str, name: str
) -> None:
    """What is no Exception asks for more than a message: ``run`` raises it once all is settled."""
    ids = send(conn, [name, None])

    async def ended() -> BaseException | None:
        try:  # here: out of a task, two of them would end the event loop
            await consume(api, dsn, way, raising(api, "plain"), size=1)
        except BaseException as error:
            return error
        return None

    assert type(await ended()) is type(FAULTS[name]())
    assert [letter[0] for letter in dead_letters(conn)] == ids[:1]
    assert value(conn, "SELECT count(*) FROM durable_notify.lease") == 0
    assert outstanding(conn) == 1


async def test_one_of_several_workers(api: Api, dsn: str, conn: Connection) -> None:
    """The others finish what they are at; what was not begun goes back uncounted."""
    send(conn, range(8))
    begun: list[int] = []
    finished: list[int] = []
    kind = dn.AsyncConsumer if api.is_async else dn.Consumer
    consumer: Any = kind(dsn, group="g", topics=["t"], poll_interval=None)

    async def handle(message: Any) -> None:
        begun.append(message.payload)
        await wait_until(lambda: len(begun) == 4)
        if message.payload == 2:
            raise Own
        await wait_until(consumer._stopping.is_set)
        finished.append(message.payload)

    def handle_now(message: Any) -> None:
        asyncio.run(handle(message))

    run = functools.partial(consumer.run, handle if api.is_async else handle_now, concurrency=4)
    with pytest.raises(Own):
        await with_timeout(run() if api.is_async else in_thread(run))
    assert sorted(finished) == [0, 1, 3]
    assert not consumer.health().live
    assert "Own" in consumer.health().why[0]
    query = "SELECT array_agg((unread, deferred, leased)) FROM durable_notify.status()"
    assert value(conn, query) == ["(4,1,0)"] or outstanding(conn) == 5


# The rules for errors, and subscribers


def raise_own(*_: Any) -> Any:
    raise Own


def raise_plain(*_: Any) -> Any:
    raise KeyError("rule")


@pytest.mark.parametrize(
    "rule",
    [raise_plain, raise_own, lambda *_: "retry", lambda *_: 3, lambda *_: dn.Retry,
     lambda *_: asyncio.sleep(0), lambda *_: (x for x in ()), lambda *_: [dn.Ack()]],
)  # fmt: skip
async def test_on_error_that_fails(
    api: Api, dsn: str, conn: Connection, way: str, rule: Any, caplog: Any
) -> None:
    """The message is retried as if there were no rule, and it is said."""
    send(conn, [1])

    def fails(_argument: Any) -> None:
        raise ZeroDivisionError("the handler's")

    try:
        await consume(api, dsn, way, fails, on_error=rule)
    except Own:
        assert rule is raise_own
    else:
        assert rule is not raise_own
    ((_, attempt, _),) = dead_letters(conn)
    assert attempt == 1
    query = "SELECT error ->> 'message' FROM durable_notify.dead_letter"
    assert value(conn, query) == "the handler's"
    assert any("on_error failed" in record.getMessage() for record in caplog.records)


async def coroutine_rule(_error: Any, _message: Any) -> Any:
    return dn.Ack()


def test_on_error_that_is_async(dsn: str) -> None:
    with pytest.raises(dn.InvalidArgument, match="plain function"):
        dn.Consumer(dsn, group="g", topics=["t"], on_error=coroutine_rule)


@pytest.mark.parametrize("fault", [ZeroDivisionError, Own, SystemExit, asyncio.CancelledError])
async def test_on_event_that_fails(
    api: Api, dsn: str, conn: Connection, way: str, fault: type[BaseException]
) -> None:
    send(conn, range(3))
    handled = []

    def tell(_event: Any) -> None:
        raise fault

    await consume(api, dsn, way, handled.append, on_event=tell)
    assert handled
    assert outstanding(conn) == 0


def test_names_of_what_is_used_here() -> None:
    """The planted fault is where it is looked for."""
    assert AsyncDispatcher.__module__ == "durable_notify._async.consumer.dispatcher"
    assert logging.getLogger("durable_notify")
