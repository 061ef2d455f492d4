"""The peers in Go and JavaScript, by the protocol of benchmarks/peers/clients/program.py."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable

import pytest

from benchmarks.peers import install
from benchmarks.peers.base import BATCH, Tally
from benchmarks.peers.clients import load
from benchmarks.peers.clients.program import Program
from tests.support.missing import need_program

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(300)]


@pytest.fixture(params=["river", "pg-boss", "graphile-worker"])
def peer(request: pytest.FixtureRequest, empty_dsn: str) -> Program:
    """A peer with an empty queue; skipped if its tools or its registry do not answer."""
    tool, build = TOOLS[request.param]
    need_program(tool)
    install.VENV.mkdir(exist_ok=True)
    with (install.VENV / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of pytest may build the same
        build()
    found = load(request.param)
    assert issubclass(found, Program)
    if reason := found.missing():
        pytest.skip(reason)
    return found(empty_dsn)


TOOLS: dict[str, tuple[str, Callable[[], None]]] = {
    "river": ("go", install.install_river),
    "pg-boss": ("npm", install.install_scripts),
    "graphile-worker": ("npm", install.install_scripts),
}


async def consume(peer: Program, tally: Tally, concurrency: int = 1) -> None:
    await asyncio.gather(tally.watch(), peer.consume(tally, concurrency))


async def test_a_backlog_is_consumed_and_acknowledged(peer: Program) -> None:
    await peer.prepare()
    async with peer.publisher() as publisher:
        begun, ended = await publisher.batches(BATCH)  # and as many to warm it
        assert begun < ended
        begun, ended = await publisher.singles(5)
        assert begun < ended
    total = 2 * BATCH + 50 + 5
    tally = Tally("consume_await", total, 0, [0], lambda: False)
    await peer.open(tally, 100)
    await consume(peer, tally, 100)
    assert tally.handled == total
    assert ended < tally.first < tally.acked

    nothing_left = Tally("consume", 1, 0, [0], iter([False] * 100 + [True]).__next__)
    await peer.open(nothing_left, 1)
    await consume(peer, nothing_left)
    assert nothing_left.handled == 0


async def test_a_consumer_is_woken(peer: Program) -> None:
    await peer.prepare()
    tally = Tally("wake", 8, 0, [0], lambda: False)
    await peer.open(tally, 1)
    consuming = asyncio.create_task(consume(peer, tally))
    async with peer.publisher() as publisher:
        times = await publisher.slowly(8)
    await consuming
    assert set(tally.entered) == set(range(8))
    assert all(tally.entered[number] > sent for number, (sent, _) in enumerate(times))


async def test_an_error_is_reported(peer: Program) -> None:
    with pytest.raises(RuntimeError, match="its program ended with"):
        await type(peer)("postgresql://postgres@/postgres?host=/nowhere").prepare()
