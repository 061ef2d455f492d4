"""Probes for containers: whether a process is alive, whether it is ready, and its metrics."""

from __future__ import annotations

import json
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Protocol

from .._version import __version__
from ..errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..models import Health

__all__ = ["HealthSource", "Probes"]

#: A scrape: its content type, and the text.
Page = tuple[str, bytes]


class HealthSource(Protocol):
    """A consumer, or another object with ``health``."""

    def health(self) -> Health:
        """Return its health."""


class Probes:
    """Answers HTTP in a thread: ``/live``, ``/ready`` and ``/metrics``.

    It answers 200 if everything watched is alive, or ready, and otherwise 503. The reasons are JSON
    in the answer. There is no encryption and no password: let only the platform reach it.

    Args:
        watched: consumers, or other objects with ``health()``.
        port: the port; 0 takes a free one (see ``port``).
        host: the address; by default only this machine reaches it.
        metrics: returns the answer of ``/metrics``, such as ``integrations.prometheus.page``.

    Raises:
        OSError: the address is not available.
    """

    def __init__(
        self,
        *watched: HealthSource,
        port: int = 8080,
        host: str = "127.0.0.1",
        metrics: Callable[[], Page] | None = None,
    ) -> None:
        if not watched:
            raise InvalidArgument("give at least one consumer to watch")
        self._server = _Server((host, port), watched, metrics)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="durable_notify probes", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it answers on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        watched: tuple[HealthSource, ...],
        metrics: Callable[[], Page] | None,
    ) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.watched = watched
        self.metrics = metrics
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for the host's name, as the base class does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "durable_notify", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = f"durable_notify/{__version__}"
    sys_version = ""
    timeout = 5.0  # for a client that connects and sends nothing

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in ("/live", "/ready"):
            self._health(path[1:])
        elif path == "/metrics" and self.server.metrics is not None:
            try:
                self._answer(HTTPStatus.OK, *self.server.metrics())
            except Exception as error:  # noqa: BLE001
                self._say(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": type(error).__name__})
        elif path == "/metrics":
            remedy = "no metrics: pip install 'durable-notify[prometheus]'"
            self._say(HTTPStatus.NOT_FOUND, {"error": remedy})
        else:
            self._say(HTTPStatus.NOT_FOUND, {"error": "there are /live, /ready and /metrics"})

    do_HEAD = do_GET  # noqa: N815

    def _health(self, question: str) -> None:
        found = [one.health() for one in self.server.watched]
        good = all(getattr(health, question) for health in found)
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        told = [
            {"group": health.group, question: getattr(health, question), "why": health.why}
            for health in found
        ]
        self._say(status, {question: good, "consumers": told})

    def _say(self, status: HTTPStatus, value: Any) -> None:
        self._answer(status, "application/json", json.dumps(value).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Do not log each probe."""
