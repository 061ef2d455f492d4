"""An endpoint of webhooks: a real HTTP server that verifies, records, and answers as it is told."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import standardwebhooks
import uvicorn

SECRET = "whsec_" + base64.b64encode(b"a" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"b" * 32).decode()


@dataclass
class Request:
    """What arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def payload(self) -> Any:
        return json.loads(self.body)

    def verify(self, secret: str = SECRET) -> None:
        standardwebhooks.Webhook(secret).verify(self.body, self.headers, json_parse=False)


@dataclass
class Answer:
    """How to answer."""

    status: int = 200
    headers: dict[str, str] | None = None
    body: bytes = b""
    endless: bool = False  # the body never ends: at full speed
    slow: bool = False  # the body never ends: it stands still


class Receiver:
    """Answers each request as `judge` says."""

    port: int
    url: str

    def __init__(self, judge: Callable[[Request], Answer | Awaitable[Answer]]) -> None:
        self.judge = judge
        self.requests: list[Request] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = Request(scope["path"], headers, body)
        self.requests.append(request)
        answer = self.judge(request)
        if not isinstance(answer, Answer):
            answer = await answer
        pairs = [(n.encode(), v.encode()) for n, v in (answer.headers or {}).items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        gone = asyncio.ensure_future(receive())
        while (answer.endless or answer.slow) and not gone.done():
            chunk = b"x" * 65536 if answer.endless else b"x"
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.wait([gone], timeout=0.001 if answer.endless else 0.2)
        gone.cancel()
        await send({"type": "http.response.body", "body": answer.body})


@contextmanager
def serving(app: Any, port: int = 0, **tls: Any) -> Iterator[int]:
    """An ASGI application on a port, in a thread; `tls`: options of uvicorn."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, timeout_graceful_shutdown=1, **tls
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as bound:
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@contextmanager
def receiving(judge: Any = lambda _: Answer(), port: int = 0) -> Iterator[Receiver]:
    """A receiver that runs in a thread."""
    receiver = Receiver(judge)
    with serving(receiver, port) as receiver.port:
        receiver.url = f"http://127.0.0.1:{receiver.port}/hook"
        yield receiver
