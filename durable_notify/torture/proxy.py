"""A TCP proxy in front of a PostgreSQL, which can break connections as networks do."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

__all__ = ["Direction", "Proxy"]

Direction = Literal["both", "to_server", "to_client"]

_CHUNK = 65536
#: How much to buffer for a slow receiver before the sender has to wait.
_MAX_HELD = 1_000_000
_END = b""  # marks the end of a sender's data in a flow


@dataclasses.dataclass(eq=False)
class _Flow:
    """The data from one socket to the other."""

    direction: Direction
    source: socket.socket
    sink: socket.socket
    #: Data that was read and not yet passed on, with the time when it may be.
    held: collections.deque[tuple[float, bytes]] = dataclasses.field(
        default_factory=collections.deque
    )
    stalled: bool = False
    read_all: bool = False
    ended: bool = False
    #: How many more bytes pass before the connection is cut; None: all.
    budget: int | None = None

    def wants(self, now: float) -> tuple[bool, bool]:
        """Return whether to read from the source, and whether to write to the sink."""
        if self.stalled:
            return False, False
        reading = not self.read_all and sum(len(data) for _, data in self.held) < _MAX_HELD
        return reading, bool(self.held) and self.held[0][0] <= now

    def due(self) -> float | None:
        return self.held[0][0] if self.held and not self.stalled else None


@dataclasses.dataclass(eq=False)
class _Pair:
    """One connection: the client's side and the server's."""

    flows: tuple[_Flow, _Flow]

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self.flows[0].source, self.flows[0].sink


class Proxy:
    """Passes bytes between clients and one PostgreSQL, in a thread of its own.

    Connect with ``dsn()``. A command has taken effect when it returns.

    Args:
        target: the DSN of the server, one host by TCP or a folder with its socket.

    Attributes:
        connections: how many clients have connected so far, without refused ones.
        to_server: how many bytes were sent to the server.
        to_client: how many bytes were sent to clients.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.connections = 0
        self.to_server = 0
        self.to_client = 0
        self._pairs: list[_Pair] = []
        self._waiting: list[socket.socket] = []  # accepted, and not connected to the server
        self._delay = 0.0
        self._stalled: Direction | None = None
        self._refusing = False
        self._on_connect: Callable[[], object] | None = None
        self._error: Exception | None = None
        self._closed = False
        self._commands: collections.deque[Callable[[], None]] = collections.deque()
        self._selector = selectors.DefaultSelector()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._bell, self._woken = socket.socketpair()
        for listener in (self._listening, self._woken):
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def dsn(self, **changes: Any) -> str:
        """Return the DSN of the server through this proxy, with changes."""
        given = conninfo_to_dict(self._target)
        given.pop("hostaddr", None)
        host, port = self._listening.getsockname()
        return make_conninfo(**given | {"host": host, "port": port} | changes)

    @property
    def open(self) -> int:
        """How many connections are open, including dead ones."""
        return len(self._pairs) + len(self._waiting)

    def blackhole(self, direction: Direction = "both") -> None:
        """Pass nothing on; connections stay open, and new ones are accepted and hang.

        The kernel on this side still confirms what it receives, as a load balancer or a NAT that
        has lost the route does. Neither end notices it by TCP alone.
        """

        def stall() -> None:
            self._stalled = direction
            for flow in self._flows():
                flow.stalled = flow.stalled or direction in ("both", flow.direction)

        self._do(stall)

    def delay(self, seconds: float) -> None:
        """Pass on new data that many seconds later, in both directions."""
        self._do(lambda: setattr(self, "_delay", seconds))

    def cut(self, after_bytes: int | None = None, direction: Direction = "both") -> None:
        """End all connections now, or each after so many more bytes in a direction."""

        def end() -> None:
            for pair in list(self._pairs):
                if after_bytes is None:
                    self._end(pair)
            for client in self._waiting if after_bytes is None else []:
                _reset(client)
            if after_bytes is None:
                self._waiting.clear()
            for flow in self._flows():
                if direction in ("both", flow.direction):
                    flow.budget = after_bytes

        self._do(end)

    def refuse(self) -> None:
        """Reset new connections; existing ones continue."""
        self._do(lambda: setattr(self, "_refusing", True))

    def forward(self, *, leave_dead: bool = False) -> None:
        """Return to normal: held data arrives, except on stalled connections if they stay dead."""

        def resume() -> None:
            self._stalled = None
            self._delay = 0.0
            self._refusing = False
            if leave_dead:
                return
            for flow in self._flows():
                flow.stalled = False
                flow.budget = None
            waiting, self._waiting = self._waiting, []
            for client in waiting:
                self._pass_on(client)

        self._do(resume)

    def on_connect(self, callback: Callable[[], object] | None) -> None:
        """Call a function before each new connection is passed on; nothing moves meanwhile.

        It runs in the proxy's thread. If it raises, the connection is reset, and ``close`` raises
        the error.
        """
        self._do(lambda: setattr(self, "_on_connect", callback))

    def close(self) -> None:
        """End all connections, and stop listening."""
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the thread has ended by an error
                self._do(lambda: setattr(self, "_closed", True))
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _do(self, command: Callable[[], None]) -> None:
        """Run a command in the thread, and return when it has run."""
        if threading.current_thread() is self._thread:
            command()
            return
        done = threading.Event()

        def run() -> None:
            command()
            done.set()

        self._commands.append(run)
        with contextlib.suppress(OSError):  # closed
            self._bell.send(b"!")
        while not done.wait(0.1):
            if not self._thread.is_alive():
                raise RuntimeError("the proxy is closed")

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
        except Exception as error:  # noqa: BLE001  # only close() can report it
            self._error = error
        finally:
            for pair in list(self._pairs):
                self._end(pair)
            for client in self._waiting:
                _reset(client)
            self._selector.close()
            for each in (self._listening, self._bell, self._woken):
                each.close()

    def _turn(self) -> None:
        now = time.monotonic()
        for pair in self._pairs:
            self._watch(pair, now)
        dues = [due - now for flow in self._flows() if (due := flow.due()) is not None]
        # Data that is due waits for its receiver, which the selector reports.
        later = [due for due in dues if due > 0]
        for key, events in self._selector.select(min(later, default=None)):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif key.fileobj is self._listening:
                self._accept()
            elif (pair_ready := key.data) in self._pairs:
                self._move(pair_ready, key.fileobj, events)
        while self._commands:
            self._commands.popleft()()

    def _flows(self) -> list[_Flow]:
        return [flow for pair in self._pairs for flow in pair.flows]

    def _watch(self, pair: _Pair, now: float) -> None:
        there, back = (flow.wants(now) for flow in pair.flows)
        client, server = pair.sockets
        for each, reading, writing in ((client, there[0], back[1]), (server, back[0], there[1])):
            events = selectors.EVENT_READ * reading | selectors.EVENT_WRITE * writing
            key = self._selector.get_map().get(each)
            if key is None:
                if events:
                    self._selector.register(each, events, pair)
            elif not events:
                self._selector.unregister(each)
            elif key.events != events:
                self._selector.modify(each, events, pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the client has disconnected already
            client, _ = self._listening.accept()
            if self._refusing:
                _reset(client)
                return
            self.connections += 1
            if self._stalled in ("both", "to_server"):
                self._waiting.append(client)
            else:
                self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        try:
            if self._on_connect is not None:
                self._on_connect()
            server = _connect(self._target)
        except OSError:
            _reset(client)  # as if the server itself had refused it
            return
        except Exception as error:  # noqa: BLE001  # a callback may raise what it likes
            self._error = error
            _reset(client)
            return
        for each in (client, server):
            each.setblocking(False)
            if each.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):  # reset already; a read will show that
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = _Flow("to_server", client, server), _Flow("to_client", server, client)
        for flow in (there, back):
            flow.stalled = self._stalled in ("both", flow.direction)
        self._pairs.append(_Pair((there, back)))

    def _move(self, pair: _Pair, ready: object, events: int) -> None:
        try:
            for flow in pair.flows:
                if not flow.stalled:
                    self._read(flow, ready, events)
                    self._write(flow)
        except BlockingIOError:
            return
        except OSError:
            if any(flow.stalled for flow in pair.flows):
                for flow in pair.flows:  # the other end must not notice it
                    flow.stalled = True
            else:
                self._end(pair)
            return
        cut = any(flow.budget == 0 for flow in pair.flows)
        if cut or all(flow.ended for flow in pair.flows):
            self._end(pair, reset=False)

    def _read(self, flow: _Flow, ready: object, events: int) -> None:
        if ready is flow.source and events & selectors.EVENT_READ and not flow.read_all:
            data = flow.source.recv(_CHUNK)
            flow.read_all = data == _END
            flow.held.append((time.monotonic() + self._delay, data))

    def _write(self, flow: _Flow) -> None:
        while flow.held and flow.held[0][0] <= time.monotonic() and flow.budget != 0:
            due, data = flow.held[0]
            if data == _END:
                flow.held.popleft()
                flow.ended = True
                with contextlib.suppress(OSError):
                    flow.sink.shutdown(socket.SHUT_WR)
                return
            try:
                sent = flow.sink.send(data[: flow.budget])
            except BlockingIOError:
                return
            if flow.direction == "to_server":
                self.to_server += sent
            else:
                self.to_client += sent
            if flow.budget is not None:
                flow.budget -= sent
            if sent == len(data):
                flow.held.popleft()
            else:
                flow.held[0] = (due, data[sent:])

    def _end(self, pair: _Pair, *, reset: bool = True) -> None:
        self._pairs.remove(pair)
        for each in pair.sockets:
            if each in self._selector.get_map():
                self._selector.unregister(each)
            if reset:
                _reset(each)
            else:
                each.close()


def _connect(target: str) -> socket.socket:
    given = conninfo_to_dict(target)
    host, port = str(given.get("hostaddr") or given.get("host", "")), given.get("port") or 5432
    if not host or "," in host:
        raise ValueError("give the proxy a DSN with one host")
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)), timeout=10)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        server.close()
        raise
    return server


def _reset(connection: socket.socket) -> None:
    """Close a connection so that its other end notices at once."""
    with contextlib.suppress(OSError):
        if connection.family != socket.AF_UNIX:
            gone = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
    connection.close()
