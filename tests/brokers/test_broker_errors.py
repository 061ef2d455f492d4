"""What brokers say, provoked on real ones: each error waits, is retried, or makes a dead letter.

The pages of the brokers have a table of that; ``test_broker_pages.py`` holds it against the code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.brokers import relay as relays
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.errors import BrokerUnavailable, InvalidArgument
from durable_notify.payloads import NewMessage
from tests.support.api import with_group
from tests.support.broker_io import carrying
from tests.support.brokers import Nats, RabbitMQ, Redis, ctl
from tests.support.wait import eventually, wait_until

pytestmark = pytest.mark.server

SECRET = "iban DE02"


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="module")
def nats_server() -> Iterator[Nats]:
    with Nats() as server:
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    backoff = relays.backoff
    monkeypatch.setattr(relays, "backoff", lambda n, first, most: backoff(n, first, min(most, 0.5)))


def publish(dsn: str, topic: str, *payloads: Any) -> None:
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(
            connection, topic, [NewMessage(payload, key="k") for payload in payloads]
        )


def dead(dsn: str) -> list[dn.models.DeadLetter]:
    with psycopg.connect(dsn) as connection:
        return list(dn.Admin().dead_letters(connection, "relay"))


@contextlib.asynccontextmanager
async def relaying(dsn: str, to: str, **options: Any) -> AsyncIterator[AsyncRelay]:
    """A running relay that has sent one message."""
    options = {"group": "relay", "topics": [">"], "poll_interval": 0.2} | options
    relay = AsyncRelay(dsn, broker_url=to, **with_group(options))
    publish(dsn, "first", 0)
    async with carrying(relay):
        await wait_until(lambda: relay.sent == 1)
        yield relay


async def waits(dsn: str, relay: AsyncRelay, caplog: pytest.LogCaptureFixture, words: str) -> None:
    """A message waits: that is said, in the broker's words, and no payload with it."""
    before = relay.sent
    publish(dsn, "first", SECRET)
    await wait_until(lambda: words in caplog.text)
    assert (relay.sent, relay.rejected) == (before, 0)
    assert dead(dsn) == []
    assert SECRET not in caplog.text


# ----------------------------------------------------------------------- Redis


def redis_of(server: Redis) -> Any:
    import redis

    return redis.Redis(port=server.port)


def busy(client: Any) -> Callable[[], None]:
    """A script runs for two seconds."""
    import threading

    import redis

    client.config_set("busy-reply-threshold", 50)
    other = redis.Redis(port=client.connection_pool.connection_kwargs["port"], socket_timeout=30)
    script = (
        "local t=redis.call('TIME')[1]+3 while redis.call('TIME')[1]+0<t do end "
        "return redis.call('SET', 'a', 'b')"
    )

    def run() -> None:
        with contextlib.suppress(Exception):
            other.eval(script, 0)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: is_busy(client))
    return thread.join


def is_busy(client: Any) -> bool:
    import redis

    try:
        client.ping()
    except redis.exceptions.ResponseError:
        return True
    return False


def setting(name: str, value: Any, back: Any) -> Callable[[Any], Callable[[], None]]:
    def set_it(client: Any) -> Callable[[], None]:
        client.config_set(name, value)
        return lambda: client.config_set(name, back)

    return set_it


def read_only(client: Any) -> Callable[[], None]:
    client.replicaof("127.0.0.1", 1)
    return lambda: client.replicaof("NO", "ONE")


def misconf(client: Any) -> Callable[[], None]:
    """The last snapshot could not be written."""
    import redis

    folder = Path(client.config_get("dir")["dir"])
    client.config_set("save", "3600 1")
    folder.chmod(0o555)
    client.set("a", "b")
    with contextlib.suppress(redis.exceptions.ResponseError):
        client.bgsave()
    eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")

    def back() -> None:
        folder.chmod(0o755)
        client.config_set("save", "")
        client.bgsave()

    return back


def without_xadd(client: Any) -> Callable[[], None]:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-xadd"])
    return lambda: client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"])


REDIS_WAITS: dict[str, Callable[[Any], Callable[[], None]]] = {
    "BUSY": busy,
    "OOM": setting("maxmemory", 1, 0),
    "NOREPLICAS": setting("min-replicas-to-write", 1, 0),
    "READONLY": read_only,
    "MISCONF": misconf,
    "NOPERM": without_xadd,
}


@pytest.mark.parametrize("code", REDIS_WAITS)
async def test_redis_waits(
    dsn: str, redis_server: Redis, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = redis_of(redis_server)
    caplog.set_level("DEBUG", "durable_notify")
    async with relaying(dsn, redis_server.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        back = await asyncio.to_thread(REDIS_WAITS[code], client)
        try:
            await waits(dsn, relay, caplog, f"Redis says: {code}")
        finally:
            await asyncio.to_thread(back)
        await wait_until(lambda: relay.sent == 2)
    assert dead(dsn) == []


async def test_redis_asks_for_a_password(
    dsn: str, redis_server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """While the relay runs it waits; at the start it does not begin."""
    client = redis_of(redis_server)
    client.ping()
    async with relaying(dsn, redis_server.url) as relay:
        client.config_set("requirepass", "other")
        client.execute_command("AUTH", "other")
        client.client_kill_filter(_type="normal", skipme=True)
        try:
            await waits(dsn, relay, caplog, "Redis")
            with pytest.raises(InvalidArgument, match="Correct the URL"):
                await AsyncRelay(dsn, broker_url=redis_server.url, group="x", topics=["t"]).run()
        finally:
            client.config_set("requirepass", "")
        await wait_until(lambda: relay.sent == 2)


async def test_redis_is_loading_at_the_start(
    dsn: str, monkeypatch: pytest.MonkeyPatch, redis_server: Redis
) -> None:
    """It is said to be out of reach, and not that the URL is wrong."""
    client = redis_of(redis_server)
    back = await asyncio.to_thread(busy, client)
    try:
        with pytest.raises(BrokerUnavailable, match="BUSY"):
            await AsyncRelay(dsn, broker_url=redis_server.url, group="x", topics=["t"]).run()
    finally:
        await asyncio.to_thread(back)


async def test_redis_refuses_one_stream(dsn: str, redis_server: Redis) -> None:
    """A key that is no stream is final; a forbidden one is retried while others pass."""
    client = redis_of(redis_server)
    client.set("string", "x")
    async with relaying(dsn, redis_server.url) as relay:
        publish(dsn, "string", SECRET)
        await wait_until(lambda: relay.rejected == 1)
    (letter,) = dead(dsn)
    assert letter.reason.startswith("Redis says: WRONGTYPE")
    assert letter.payload == SECRET
    assert SECRET not in letter.reason


async def test_redis_does_not_tell_its_limit(
    dsn: str, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too large breaks the connection for all in its batch: the others pass."""
    monkeypatch.setattr(relays, "PASSED", 2)
    async with relaying(dsn, redis_server.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        relay._broker._bulk = 2**40  # type: ignore[attr-defined]
        publish(dsn, "big", "x" * 1_500_000)
        publish(dsn, "other", *range(5))
        await wait_until(lambda: relay.sent == 6)
        number = 0
        while not dead(dsn):  # it fails while others pass
            publish(dsn, "other", number)
            await asyncio.sleep(0.05)
    assert [letter.topic for letter in dead(dsn)] == ["big"]


# -------------------------------------------------------------------- RabbitMQ


async def queue_of(server: RabbitMQ, name: str, topic: str = "", **arguments: Any) -> None:
    import aio_pika

    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True, arguments=arguments or None)
        await queue.bind("amq.topic", topic or name)


async def deleted(server: RabbitMQ, name: str) -> None:
    import aio_pika

    async with await aio_pika.connect(server.url) as connection:
        await (await connection.channel()).queue_delete(name)


async def test_a_route_that_was_there(
    dsn: str, rabbit: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """NO_ROUTE is final, but where there was one: a queue made again, or whose node is down."""
    await queue_of(rabbit, "first")
    async with relaying(dsn, rabbit.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        publish(dsn, "nowhere", 1)
        await wait_until(lambda: relay.rejected == 1)
        await deleted(rabbit, "first")
        publish(dsn, "first", SECRET)
        await wait_until(lambda: "an earlier message was accepted there" in caplog.text)
        assert relay.sent == 1
        await queue_of(rabbit, "first")
        await wait_until(lambda: relay.sent == 2)
    (letter,) = dead(dsn)
    assert letter.reason.startswith("RabbitMQ says: 312 NO_ROUTE")
    await deleted(rabbit, "first")


async def test_a_queue_whose_node_is_down(
    dsn: str, rabbit: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """A classic queue whose node is down answers NO_ROUTE: the broker knows of no live queue."""
    await queue_of(rabbit, "first")
    name = 'rabbit_misc:r(<<"/">>, queue, <<"first">>)'
    async with relaying(dsn, rabbit.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        # As rabbit_amqqueue:on_node_down() leaves it: the durable record alone.
        found = await asyncio.to_thread(
            ctl, rabbit, "eval", f"Q = mnesia:dirty_read(rabbit_durable_queue, {name}), "
            f"mnesia:dirty_delete(rabbit_queue, {name}), length(Q).",
        )  # fmt: skip
        assert found.strip() == "1"
        try:
            publish(dsn, "first", SECRET)
            await wait_until(lambda: "312 NO_ROUTE" in caplog.text)
        finally:
            await asyncio.to_thread(
                ctl, rabbit, "eval", f"[Q] = mnesia:dirty_read(rabbit_durable_queue, {name}), "
                "mnesia:dirty_write(rabbit_queue, Q).",
            )  # fmt: skip
        await wait_until(lambda: relay.sent == 2)
    assert dead(dsn) == []
    await deleted(rabbit, "first")


async def test_rabbitmq_blocks_publishers(
    dsn: str, rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It says nothing, and so the relay does."""
    monkeypatch.setattr(relays, "SILENCE", 0.5)
    await queue_of(rabbit, "first")
    alarm = "{resource_limit, memory, node()}"
    async with relaying(dsn, rabbit.url) as relay:
        await asyncio.to_thread(ctl, rabbit, "eval", f"rabbit_alarm:set_alarm({{{alarm}, []}}).")
        try:
            await waits(dsn, relay, caplog, "the broker has not confirmed all")
        finally:
            await asyncio.to_thread(ctl, rabbit, "eval", f"rabbit_alarm:clear_alarm({alarm}).")
        await wait_until(lambda: relay.sent == 2)
    await deleted(rabbit, "first")


async def test_rabbitmq_closes_connections(
    dsn: str, rabbit: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """320 CONNECTION_FORCED, by an administrator."""
    await queue_of(rabbit, "first")
    async with relaying(dsn, rabbit.url) as relay:
        await asyncio.to_thread(ctl, rabbit, "close_all_connections", "maintenance")
        publish(dsn, "first", SECRET)
        await wait_until(lambda: relay.sent == 2)
    assert dead(dsn) == []
    await deleted(rabbit, "first")


async def test_what_rabbitmq_refuses(dsn: str, rabbit: RabbitMQ) -> None:
    """Each ends as the page says; what is published after them arrives."""
    import aio_pika

    await queue_of(rabbit, "first")
    await queue_of(rabbit, "full", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    async with await aio_pika.connect(rabbit.url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("inside", "topic", internal=True, durable=True)
    routes = {"none": {"exchange": "no{key}"}, "forbidden": {"exchange": "insid{topic}"}}
    routes["forbidden"] = {"exchange": "inside"}
    async with relaying(dsn, rabbit.url, routes=routes, retry=dn.RetryPolicy(base=60)) as relay:
        publish(dsn, "none", SECRET)
        publish(dsn, "forbidden", SECRET)
        publish(dsn, "full", SECRET)
        publish(dsn, "first", SECRET + "x" * 2_000_000)
        publish(dsn, "first", 1, 2)
        await wait_until(lambda: relay.sent == 3)
        await wait_until(lambda: len(failures(dsn)) == 2)
    letters = {letter.topic: letter.reason for letter in dead(dsn)}
    assert letters.keys() == {"none", "first"}
    assert "NOT_FOUND - no exchange 'nok'" in letters["none"]
    assert "PRECONDITION_FAILED - message size" in letters["first"]
    again = failures(dsn)
    assert "ACCESS_REFUSED" in again["forbidden"]
    assert "basic.nack" in again["full"]
    assert SECRET not in str(letters) + str(again)
    for name in ("first", "full"):
        await deleted(rabbit, name)


def failures(dsn: str) -> dict[str, str]:
    """Return, by topic, why messages are retried."""
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT topic, message_id, error ->> 'message' FROM "
            "durable_notify.deferred d JOIN durable_notify.subscription s ON s.id = d.subscription_id "
            "WHERE error IS NOT NULL").fetchall()  # fmt: skip
    return {topic: words for topic, _, words in found}


async def test_rabbitmq_refuses_every_login(dsn: str, rabbit: RabbitMQ) -> None:
    wrong = rabbit.url.replace("guest:guest", "guest:wrong")
    with pytest.raises(InvalidArgument, match="refuses user or password"):
        await AsyncRelay(dsn, broker_url=wrong, group="x", topics=["t"]).run()
    with pytest.raises(BrokerUnavailable, match="does the virtual host exist"):
        await AsyncRelay(dsn, broker_url=f"{rabbit.url}nowhere", group="x", topics=["t"]).run()


# ------------------------------------------------------------------------ NATS


async def stream_of(server: Nats, name: str, *subjects: str, **options: Any) -> None:
    import nats

    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name=name, subjects=list(subjects), **options)
    await client.close()


async def no_stream(server: Nats, name: str) -> None:
    import nats

    client = await nats.connect(server.url)
    await client.jetstream().delete_stream(name)
    await client.close()


async def test_what_nats_refuses(dsn: str, nats_server: Nats) -> None:
    await stream_of(nats_server, "first", "first")
    await stream_of(nats_server, "small", "small", max_msg_size=100)
    await stream_of(nats_server, "full", "full", max_msgs=1, discard="new")
    async with relaying(dsn, nats_server.url, retry=dn.RetryPolicy(base=60)) as relay:
        publish(dsn, "nowhere", SECRET)
        publish(dsn, "small", SECRET + "x" * 200)
        publish(dsn, "full", 1)
        await wait_until(lambda: relay.sent == 2)
        publish(dsn, "full", SECRET)
        publish(dsn, "first", SECRET + "x" * 2_000_000)
        publish(dsn, "first", 1, 2)
        await wait_until(lambda: relay.sent == 4)
        await wait_until(lambda: relay.rejected == 3)
        await wait_until(lambda: len(failures(dsn)) == 1)
    letters = {letter.topic: letter.reason for letter in dead(dsn)}
    assert letters.keys() == {"nowhere", "small", "first"}
    assert "no response from stream" in letters["nowhere"]
    assert "(10054)" in letters["small"]
    assert "maximum payload exceeded" in letters["first"]
    assert "(10077)" in failures(dsn)["full"]
    assert SECRET not in str(letters) + str(failures(dsn))
    for name in ("first", "small", "full"):
        await no_stream(nats_server, name)


async def test_a_stream_that_was_there(
    dsn: str, nats_server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    await stream_of(nats_server, "first", "first")
    async with relaying(dsn, nats_server.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        await no_stream(nats_server, "first")
        await waits(dsn, relay, caplog, "an earlier message was accepted there")
        await stream_of(nats_server, "first", "first")
        await wait_until(lambda: relay.sent == 2)
    await no_stream(nats_server, "first")


async def test_a_stream_that_is_sealed(
    dsn: str, nats_server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that is in no list of ours: it waits, and is said."""
    import nats

    await stream_of(nats_server, "first", "first")
    async with relaying(dsn, nats_server.url, retry=dn.RetryPolicy(max_attempts=1)) as relay:
        client = await nats.connect(nats_server.url)
        about = await client.jetstream().stream_info("first")
        about.config.sealed = True
        await client.jetstream().update_stream(about.config)
        await waits(dsn, relay, caplog, "NATS says")
        await no_stream(nats_server, "first")
        await stream_of(nats_server, "first", "first")
        await wait_until(lambda: relay.sent == 2)
        await client.close()
    await no_stream(nats_server, "first")
