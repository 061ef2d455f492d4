"""The peers in Go and JavaScript, by the protocol of benchmarks/peers/clients/program.py."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.peers.base import BATCH, Tally
from benchmarks.peers.clients import load
from benchmarks.peers.clients.program import Program

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(300)]


@pytest.fixture(params=["river", "pg-boss", "graphile-worker"])
def peer(request: pytest.FixtureRequest, empty_dsn: str) -> Program:
    """A peer with an empty queue; skipped unless `benchmarks/peers/run.py` has built it.

    Building downloads hundreds of packages, for which no test should wait.
    """
    found = load(request.param)
    assert issubclass(found, Program)
    if reason := found.missing():
        pytest.skip(reason)
    return found(empty_dsn)


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
