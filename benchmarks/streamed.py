"""The processes of the measurement of streams: one serves them, one has all the clients."""

from __future__ import annotations

import asyncio
import re
import resource
import time
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.harness import say, words
from durable_notify.web import StreamAccess, streams

#: What to look for in a stream: when a message was published. It is split by at most so many bytes.
AT = re.compile(rb'"at":(\d{8,})[,}]')
SPLIT = 40
#: Of which clients the delays are taken: all would cost more than the streams.
EVERY = 20


def many_files() -> None:
    """Allow as many connections as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory() -> dict[str, float]:
    """Return the memory of this process in MB, now and at most."""
    found = re.findall(r"Vm(RSS|HWM):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {name: int(size) / 1000 for name, size in found}


async def serve(dsn: str, clients: int) -> None:
    """Serve streams; print the port, then memory, CPU time and statistics for each word."""
    many_files()
    app = streams(dsn, authorize=lambda _: StreamAccess((">",)), max_clients=clients + 10)
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    told = await words()
    say("ready")
    while await told.readline():
        stats = app.state.stats()
        say({
            "port": server.servers[0].sockets[0].getsockname()[1], "cpu": time.process_time(),
            "live": stats.live, "shed": stats.shed, **memory(),
        })  # fmt: skip
    server.should_exit = True
    await running


class Client(asyncio.Protocol):
    """Counts messages, as they arrive."""

    def __init__(self, path: str, delays: list[float] | None) -> None:
        self._path = path
        self._delays = delays
        self._rest = b""
        self.count = 0

    def connection_made(self, transport: Any) -> None:
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        given = self._rest + data
        end = 0
        for found in AT.finditer(given):
            self.count += 1
            end = found.end()
            if self._delays is not None:
                self._delays.append((time.monotonic_ns() - int(found[1])) / 1e6)
        self._rest = given[max(end, len(given) - SPLIT) :]


async def follow(_dsn: str, port: int, clients: int, path: str) -> None:
    """Connect; for each word, print how many messages arrived at all clients, and delays."""
    many_files()
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    all_of_them = [
        Client(path, delays if number % EVERY == 0 else None) for number in range(clients)
    ]
    for client in all_of_them:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
    told = await words()
    say("ready")
    while await told.readline():
        say({"counts": [client.count for client in all_of_them], "delays": delays})
