"""Webhooks: secrets that change while a relay runs, headers of one's own, and a proxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import standardwebhooks

import durable_notify as dn
from durable_notify.brokers import signing
from durable_notify.brokers.broker import Sent, Unconfirmed
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.signing import PlacedSecrets
from durable_notify.brokers.webhooks import WebhookOptions, send_test
from durable_notify.errors import InvalidArgument
from tests.support.broker_io import carrying
from tests.support.cli import fails, good, run
from tests.support.receiver import OTHER, SECRET, Receiver
from tests.support.wait import wait_until

pytestmark = pytest.mark.usefixtures("secret")

HERE = ("127.0.0.0/8",)


async def test_a_file_is_read_again_when_it_changes(
    dsn: str, receiver: Receiver, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "LOOK", 0.0)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    webhook = WebhookOptions(secrets=[f"file:{file}"], allow=HERE)
    relay = AsyncRelay(dsn, broker_url=receiver.url, group="shop", topics=["t"], webhook=webhook)
    async with carrying(relay):
        with psycopg.connect(dsn, autocommit=True) as connection:
            for number, text, valid in (
                (1, None, SECRET), (2, f"{OTHER} {SECRET}", OTHER), (3, "nonsense", OTHER),
                (4, "", OTHER), (5, SECRET, SECRET),
            ):  # fmt: skip
                if text is not None:
                    file.write_text(text)
                dn.Publisher().publish(connection, "t", number)
                await wait_until(lambda count=number: len(receiver.requests) == count)  # type: ignore[misc]
                receiver.requests[-1].verify(valid)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        receiver.requests[-1].verify(OTHER)


def test_a_file_that_is_gone_changes_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "LOOK", 0.0)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    secrets = PlacedSecrets([f"file:{file}"])
    file.unlink()
    assert list(secrets.current()) == [SECRET]
    file.write_text(OTHER)
    assert list(secrets.current()) == [OTHER]


def test_headers(dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "Bearer-7")
    with psycopg.connect(dsn, autocommit=True) as connection:
        dn.Publisher().publish(connection, "t", 1, headers={"authorization": "mine", "x": "1"})
    good(
        "relay", "t", "--group", "shop", "--to", receiver.url, "--allow", HERE[0], "--until-empty",
        "--header", "Authorization=env:TOKEN", "--header", "X-Version=3",
        "--header-prefix", "svix-", dsn=dsn,
    )  # fmt: skip
    (request,) = receiver.requests
    request.verify()
    assert request.headers["authorization"] == "Bearer-7"
    assert request.headers["x-version"] == "3"
    assert request.headers["durable-notify-header-authorization"] == "mine"
    moved = {
        f"webhook-{name}": request.headers[f"svix-{name}"]
        for name in ("id", "timestamp", "signature")
    }
    standardwebhooks.Webhook(SECRET).verify(request.body, moved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "x"), ("content-length", "1"), ("webhook-signature", "v1,x"), ("ce-type", "x"),
        ("durable-notify-id", "1"), ("a b", "x"), ("", "x"), ("x", "a\r\nb: c"), ("x", ""),
    ],
)  # fmt: skip
def test_headers_that_cannot_be(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument):
        WebhookOptions(headers={name: value})


def test_options_do_not_show_what_may_be_secret() -> None:
    options = WebhookOptions(headers={"authorization": "hidden"}, proxy="http://u:hidden@p:1")
    assert "hidden" not in repr(options)
    fails(run("webhook", "test", "https://x.example", "--header", "x"), 2, "NAME=VALUE")


class Proxy:
    """Passes on CONNECT and plain requests to a host that it allows."""

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        self.asked.append(f"{method.decode()} {target.decode()}")
        host = target.decode().removeprefix("http://").partition("/")[0]
        if host != self.allowed:
            writer.write(b"HTTP/1.1 407 Refused\r\ncontent-length: 0\r\n\r\n")
        else:
            _, _, port = host.partition(":")
            there, back = await asyncio.open_connection("127.0.0.1", int(port))
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            back.write(head + await reader.readexactly(length))
            writer.write(await there.readuntil(b"\r\n\r\n"))
            back.close()
        await writer.drain()
        writer.close()


async def test_a_proxy(receiver: Receiver) -> None:
    """The proxy looks up names, and decides: nothing else connects."""
    proxy = Proxy(f"shop.invalid:{receiver.port}")
    async with proxy.running() as url:
        options = WebhookOptions(proxy=url)
        assert isinstance(
            await send_test(f"http://shop.invalid:{receiver.port}/hook", options), Sent
        )
        refused = await send_test("https://other.invalid/hook", options)
        assert refused == Unconfirmed("the proxy does not reach other.invalid")
        plain = await send_test("http://other.invalid/hook", options)
        assert not isinstance(plain, Sent)
    receiver.requests[0].verify()
    assert proxy.asked == [
        f"POST http://shop.invalid:{receiver.port}/hook", "CONNECT other.invalid:443",
        "POST http://other.invalid/hook",
    ]  # fmt: skip


def test_proxies_that_cannot_be() -> None:
    for wrong in ("ftp://x", "x"):
        with pytest.raises(InvalidArgument, match="write a proxy as"):
            WebhookOptions(proxy=wrong)
    with pytest.raises(InvalidArgument, match="leave allow out"):
        WebhookOptions(proxy="http://p:1", allow=HERE)
