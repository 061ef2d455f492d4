"""What an endpoint, a name server or a publisher may try, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import psycopg
import pytest

import durable_notify as dn
from durable_notify.brokers import webhooks
from durable_notify.brokers.broker import Outcome, Rejected, RetryLater, Sent, Unconfirmed
from durable_notify.brokers.relay import AsyncRelay
from durable_notify.brokers.webhooks import WebhookOptions, send_test
from durable_notify.errors import BrokerUnavailable, InvalidArgument
from durable_notify.payloads import NewMessage
from tests.brokers.test_sending import broker_message
from tests.security.test_tls import certificates
from tests.support.receiver import Answer, Receiver, serving

pytestmark = pytest.mark.usefixtures("secret")

HERE = WebhookOptions(allow=("127.0.0.0/8",), timeout=1)
PUBLIC = "93.184.216.34"


class Names:
    """A name server of an attacker: each lookup may lead elsewhere."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.lookups = 0

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.lookups += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        kinds = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
        return [
            (kind, socket.SOCK_STREAM, 6, "", (one, port, 0, 0) if ":" in one else (one, port))
            for kind, one in zip(kinds, addresses, strict=True)
        ]


async def post(url: str, options: WebhookOptions | None = None, **about: Any) -> Outcome:
    relay = webhooks.Relay(url, options)
    try:
        (outcome,) = await relay.send([broker_message(b"{}", **about)], lambda *_: None)
    finally:
        await relay.close()
    return outcome


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "192.0.0.8",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[fe80::1]", "[fd00::1]",
        "2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "127.1", "127.0.1",
    ],
)  # fmt: skip
async def test_addresses_in_the_url(host: str) -> None:
    with pytest.raises(InvalidArgument, match="is refused"):
        await send_test(f"http://{host}/")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::"],
)  # fmt: skip
@pytest.mark.parametrize("beside_a_public_one", [False, True])
async def test_addresses_behind_a_name(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, address: str, beside_a_public_one: bool
) -> None:
    names = Names([PUBLIC, address] if beside_a_public_one else [address])
    monkeypatch.setattr(webhooks, "_resolver", names)
    url = f"http://example.com:{receiver.port}/"
    outcome = await post(url)
    assert isinstance(outcome, Unconfirmed)
    assert "example.com" in outcome.reason
    assert "is refused" in outcome.reason
    assert str(ip_address(address)) in outcome.reason or address in outcome.reason
    with pytest.raises(InvalidArgument, match="refused"):
        await send_test(url)
    assert receiver.requests == []


async def test_a_name_that_moves(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it is checked, private when it is connected to."""
    names = Names([PUBLIC], ["127.0.0.1"])
    names("example.com", 80)  # any earlier check
    monkeypatch.setattr(webhooks, "_resolver", names)
    outcome = await post(f"http://example.com:{receiver.port}/")
    assert isinstance(outcome, Unconfirmed)
    assert receiver.requests == []
    assert names.lookups == 2  # what it checked is what it connects to: it looked only once


async def test_a_check_of_the_url_is_caught(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the name is checked, and the client looks it up again."""
    names = Names([PUBLIC], ["127.0.0.1"])

    def planted(policy: Any, *_: Any) -> httpx.AsyncClient:
        import ssrfguard

        target = policy.check_url(f"http://localhost:{receiver.port}/")
        ssrfguard.resolve(target, policy=policy, resolver=names)  # it is public: continue
        return httpx.AsyncClient(trust_env=False)

    monkeypatch.setattr(webhooks, "_guarded_client", planted)
    assert isinstance(await post(f"http://localhost:{receiver.port}/"), Sent)
    assert len(receiver.requests) == 1


async def test_what_is_allowed_is_no_more_than_that(receiver: Receiver) -> None:
    assert isinstance(await post(receiver.url, HERE), Sent)
    with pytest.raises(InvalidArgument, match="refused"):
        webhooks.Relay("http://10.0.0.1/", HERE)
    with pytest.raises(InvalidArgument, match="allow"):
        WebhookOptions(allow=("127.0.0.1/8",))
    with pytest.raises(InvalidArgument, match="allow"):  # it would be all of IPv4, hidden
        webhooks.Relay(receiver.url, WebhookOptions(allow=("64:ff9b::/96",)))


@pytest.mark.parametrize(
    "url", ["https://u:p@example.com/", "https:///x", "https://h:x/", "http://"]
)
def test_urls_that_cannot_work(url: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        webhooks.Relay(url)
    assert "u:p" not in str(refused.value)


async def test_a_token_in_the_url_is_not_said(receiver: Receiver) -> None:
    receiver.judge = lambda _: Answer(500)
    outcome = await post(f"{receiver.url}/T0KEN?key=T0KEN", HERE)
    assert isinstance(outcome, RetryLater)
    assert "T0KEN" not in outcome.reason
    with pytest.raises(InvalidArgument) as refused:
        webhooks.Relay("http://10.0.0.1/T0KEN")
    assert "T0KEN" not in str(refused.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects(receiver: Receiver, status: int) -> None:
    """Each leads to the next: endless, if it were followed."""
    receiver.judge = lambda _: Answer(status, {"location": f"{receiver.url}/again"})
    outcome = await post(receiver.url, HERE)
    assert isinstance(outcome, RetryLater)
    assert "not followed" in outcome.reason
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("body", ["endless", "slow"])
async def test_a_body_without_an_end(receiver: Receiver, body: str, status: int) -> None:
    receiver.judge = lambda _: Answer(status, **{body: True})  # type: ignore[arg-type]
    began = time.monotonic()
    outcome = await post(receiver.url, HERE)
    assert isinstance(outcome, Sent if status == 200 else RetryLater)
    assert time.monotonic() - began < 5


async def test_a_bomb(receiver: Receiver) -> None:
    receiver.judge = lambda _: Answer(200, {"content-encoding": "gzip"}, b"no gzip")
    assert isinstance(await post(receiver.url, HERE), Sent)


async def raw(answer: bytes, *, stay: bool = False) -> Outcome:
    """Post to a server that sends these bytes; `stay`: and waits until the client goes."""

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            with contextlib.suppress(OSError):
                connection.sendall(answer)
                while stay and connection.recv(65536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        outcome = await post(f"http://127.0.0.1:{server.getsockname()[1]}/", HERE)
        await asyncio.to_thread(thread.join)
    return outcome


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 2", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000,
     b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"HTTP/1.1 999999 OK\r\n\r\n"],
)  # fmt: skip
async def test_no_http(answer: bytes) -> None:
    outcome = await raw(answer)
    assert isinstance(outcome, RetryLater)
    assert "broke the connection" in outcome.reason


async def test_a_broken_body_after_the_status() -> None:
    outcome = await raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    assert isinstance(outcome, Sent)


async def test_no_answer() -> None:
    began = time.monotonic()
    outcome = await raw(b"HTTP/1.1 200", stay=True)
    assert isinstance(outcome, RetryLater)
    assert "did not answer in 1 s" in outcome.reason
    assert time.monotonic() - began < 5


KEY = 'ä", x: y%0d%0a\u2028 '
INJECTED = "x\r\nwebhook-signature: v1,forged\r\n\r\nGET / HTTP/1.1"


async def test_header_injection(dsn: str, receiver: Receiver) -> None:
    """By key, by the name of a header, by its value: they stay one header."""
    headers = {
        "host": "internal", "Authorization": "Bearer x", "x-forwarded-for": "10.0.0.1",
        "webhook-id": "forged", "Webhook-Signature": "v1,forged", "content-length": "1",
        "transfer-encoding": "chunked", "durable-notify-key": "forged", "durable-notify-id": "1",
        "durable-notify-x": "1", INJECTED: "name", "value": INJECTED, "ce_id": "ä\r\nb",
        "tracestate": "a=1",
    }  # fmt: skip
    with psycopg.connect(dsn) as connection:
        dn.Publisher().publish_many(
            connection, "t", [NewMessage(1, key=KEY), NewMessage(2, headers=headers)]
        )
    await AsyncRelay(
        dsn, broker_url=receiver.url, webhook=HERE, group="g", topics=["t"], until_empty=True
    ).run()
    assert len(receiver.requests) == 2
    one, two = sorted(receiver.requests, key=lambda request: request.payload)
    one.verify()
    two.verify()
    assert "\r" not in str(one.headers)
    assert unquote(one.headers["durable-notify-key"]) == KEY
    assert two.headers["durable-notify-header-value"].startswith("x%0D%0Awebhook-signature:%20v1")
    prefix = "durable-notify-header-"
    assert two.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert two.headers[f"{prefix}host"] == "internal"
    assert two.headers[f"{prefix}webhook-id"] == "forged"
    assert two.headers[f"{prefix}durable-notify-id"] == "1"
    assert two.headers["durable-notify-id"] == two.headers["webhook-id"]
    assert not {"authorization", "x-forwarded-for", "transfer-encoding", "durable-notify-key",
                "durable-notify-x"} & set(two.headers)  # fmt: skip
    assert two.headers["ce-id"] == "%C3%A4%0D%0Ab"
    assert two.headers["tracestate"] == "a=1"


async def test_a_content_type_that_is_none(receiver: Receiver) -> None:
    for kind in ("a\r\nx: y", "ä"):
        relay = webhooks.Relay(receiver.url, HERE)
        message = broker_message(b"{}")
        message.content_type = kind
        (outcome,) = await relay.send([message], lambda *_: None)
        await relay.close()
        assert isinstance(outcome, Rejected)
        assert "HTTP cannot carry it" in outcome.reason
    assert receiver.requests == []


async def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert isinstance(await post(receiver.url, HERE), Sent)


async def test_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(webhooks, "_resolver", unknown)
    assert isinstance(await post("http://example.com/"), Unconfirmed)
    with pytest.raises(BrokerUnavailable, match=r"example\.com cannot be reached"):
        await send_test("http://example.com/")


@pytest.mark.parametrize("trusted", ["ours", "others"])
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: str) -> None:
    """The certificate is of the name, not of the address that was checked, and is verified."""
    certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / f"{trusted}.crt"))
    tls = {"ssl_keyfile": tmp_path / "server.key", "ssl_certfile": tmp_path / "server.crt"}
    receiver = Receiver(lambda _: Answer())
    with serving(receiver, **tls) as port:
        monkeypatch.setattr(webhooks, "_resolver", Names(["127.0.0.1"]))
        outcomes = [await post(f"https://{host}:{port}/", HERE) for host in ("localhost", "other")]
    kinds = [Sent if trusted == "ours" else Unconfirmed, Unconfirmed]
    assert [type(outcome) for outcome in outcomes] == kinds
    assert len(receiver.requests) == (trusted == "ours")
