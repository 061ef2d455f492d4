"""Webhooks: HTTP requests signed by Standard Webhooks, with httpx: the extra ``webhooks``.

A message is a POST of its payload to one URL. A mapping has no fields.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.utils
import functools
import json
import os
import re
import ssl
import time
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._core.checks import check_count
from .._core.pacing import backoff
from ..durations import Seconds, in_seconds
from ..endpoints import RETRY, check_headers
from ..errors import BrokerUnavailable, InvalidArgument
from .broker import (
    UNCARRIED,
    BrokerMessage,
    Gone,
    Rejected,
    RetryLater,
    Sent,
    Skipped,
    Unconfirmed,
    by_ordering_key,
    client_of,
    kind_of,
    url_parts,
)  # fmt: skip
from .signing import PlacedSecrets, Signer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .broker import Outcome, Report
    from .routes import Routes
    from .signing import Secrets

__all__ = ["RETRY", "Relay", "WebhookOptions", "send_test", "try_out"]

#: The largest body that is sent, and the largest headers, in bytes.
MAX_BODY = 1024 * 1024
MAX_HEADERS = 8 * 1024
#: How much of a response is read, so that its connection can be used again; it is not kept.
MAX_RESPONSE = 1024
#: To how many addresses of a name to connect, one after another.
ADDRESSES = 3
#: The endpoint cannot take more now.
BUSY = (429, 502, 503, 504)
#: The longest ``Retry-After`` that is honoured, in seconds.
LONGEST = 86_400.0
#: How long an unused connection is kept: less than servers do, which close it without a word.
KEEP = 2.0
#: What the CloudEvents HTTP binding leaves as it is in a header; the rest is percent-encoded.
_PRINTABLE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_NAME = "!#$&'*+-.^_`|~"
#: Headers of publishers that keep their names.
_KNOWN = re.compile(r"traceparent|tracestate|ce-[a-z0-9]+")
_PREFIX = "durable-notify-header-"
#: Resolves the endpoint's name; None: as the machine does. Tests move a name meanwhile.
_resolver: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class WebhookOptions:
    """How to send to an endpoint.

    Args:
        secrets: where each secret is, never the secret itself: ``env:NAME`` or ``file:PATH``. A
            message is signed with all of them, so that a receiver can change from one to another.
            One place may have several secrets, with white space between. A file is read again
            when it changes.
        allow: networks that may be reached although they are not public, such as ``10.1.0.0/16``.
        timeout: how long one request may take, from the connection to the answer.
        concurrency: how many requests are under way at once.
        headers: further headers of each request.
        header_prefix: sends the three headers of a signature once more, with this instead of
            ``webhook-``, for receivers that used another service: ``"svix-"``.
        proxy: the URL of a proxy that all requests take, such as smokescreen. It decides which
            addresses are reached, because it looks up the names.

    Raises:
        InvalidArgument: one of them cannot work.
    """

    secrets: Sequence[str] = ("env:DURABLE_NOTIFY_WEBHOOK_SECRET",)
    allow: Sequence[str] = ()
    timeout: Seconds = 15.0
    concurrency: int = 10
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    header_prefix: str | None = None
    proxy: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        in_seconds("timeout", self.timeout)
        check_count("concurrency", self.concurrency)
        object.__setattr__(self, "headers", check_headers(self.headers))
        if self.proxy is not None:
            parts = url_parts(self.proxy)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise InvalidArgument("write a proxy as http://HOST:PORT")
            if self.allow:
                raise InvalidArgument("proxy decides which addresses are reached: leave allow out")
        for network in self.allow:
            try:
                ip_network(network)
            except ValueError as error:
                raise InvalidArgument(f"allow: {error}. Write 10.1.0.0/16") from error


class Relay:
    """Sends messages to an endpoint."""

    fields: Mapping[str, str] = {}
    new_group_retry = RETRY
    batch_size = 100  # of the requests of a larger one, most would only wait for the others

    def __init__(
        self, url: str, options: WebhookOptions | None = None, secrets: Secrets | None = None
    ) -> None:
        self._httpx, self._guard = client_of("webhooks", "httpx", "ssrfguard")
        self._options = options or WebhookOptions()
        parts = url_parts(url)
        if not parts.hostname or parts.username is not None or parts.password is not None:
            raise InvalidArgument("write a webhook's URL as https://HOST/PATH, without a password")
        self._url = url
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        self._signer = Signer(secrets or PlacedSecrets(self._options.secrets))
        try:
            self._policy = self._guard.Policy(
                allowed_networks=tuple(self._options.allow),
                allowed_ports=frozenset({self._port}),
                max_connection_attempts=ADDRESSES,
            )
            self._policy.check_url(url)
        except self._guard.SSRFGuardError as error:
            raise InvalidArgument(self._refusal(error)) from None
        except ValueError as error:  # such as one that would allow every hidden IPv4 address
            raise InvalidArgument(f"allow: {error}") from None
        self._timeout = in_seconds("timeout", self._options.timeout)
        self._client: Any = None
        self._idle: asyncio.TimerHandle | None = None
        self._sending = 0
        self._slots = asyncio.Semaphore(self._options.concurrency)
        self._unreachable: Outcome | None = None
        self._busy = 0  # how often in a row the endpoint could not take more
        self._open_at = 0.0  # when it may get more

    def check(self, field: str, template: str) -> None:
        """There is no field to check."""

    async def connect(self, routes: Routes) -> None:  # noqa: ARG002 - they have no fields
        """Connect, which sends nothing."""
        if self._options.proxy is not None:
            return  # it says whether it reaches the host when something is sent
        guarded = client_of("webhooks", "ssrfguard.httpx", "httpcore")
        backend = guarded[0].AsyncSafeBackend(policy=self._policy, resolver=_resolver)
        try:
            stream = await backend.connect_tcp(self._host, self._port, self._timeout)
        except self._guard.SSRFGuardError as error:
            raise InvalidArgument(self._refusal(error)) from None
        except (guarded[1].ConnectError, guarded[1].ConnectTimeout) as error:
            raise BrokerUnavailable(f"{self._host} cannot be reached: {kind_of(error)}") from error
        await stream.aclose()

    async def close(self) -> None:
        """Disconnect."""
        if self._idle is not None:
            self._idle.cancel()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages: of each ordering key one after another, some at once."""
        self._unreachable = None
        if self._client is None:
            self._client = _guarded_client(self._policy, self._timeout, self._options)
        if self._idle is not None:
            self._idle.cancel()
        self._sending += 1
        try:
            return await by_ordering_key(messages, self._begin, report)
        finally:
            self._sending -= 1
            if not self._sending:
                # A server that closes an unused connection leaves us its half: one a request.
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(KEEP, self._rest)

    def _rest(self) -> None:
        # Trap: a task that takes the client would take it from a request that begins meanwhile.
        client, self._client = self._client, None
        self._resting = asyncio.ensure_future(client.aclose())

    async def _begin(self, message: BrokerMessage) -> Outcome | asyncio.Future[Outcome]:
        if not message.wanted:
            return Skipped()
        await self._slots.acquire()
        try:
            # Trap: not before it has a slot: meanwhile the endpoint may have said that it is busy.
            while (wait := self._open_at - time.monotonic()) > 0:  # noqa: ASYNC110 - until a time
                await asyncio.sleep(wait)
        except BaseException:
            self._slots.release()
            raise
        if self._unreachable is not None:
            self._slots.release()
            return self._unreachable
        task = asyncio.ensure_future(self._post(message))
        task.add_done_callback(lambda _: self._slots.release())
        return task

    async def _post(self, message: BrokerMessage) -> Outcome:
        if flaw := _flaw(message):
            return Rejected(flaw)
        try:
            status, later = await self._answer(message.body, self._headers(message))
        except (
            self._guard.SSRFGuardError, self._httpx.HTTPError, TimeoutError, *UNCARRIED,
        ) as error:  # fmt: skip
            return self._failed(error)
        return self._outcome_of(status, later)

    def _failed(self, error: Exception) -> Outcome:
        httpx = self._httpx
        outcome: Outcome
        if isinstance(error, self._guard.SSRFGuardError):
            outcome = self._unreachable = Unconfirmed(self._refusal(error))
        elif isinstance(error, httpx.ProxyError):
            outcome = self._unreachable = Unconfirmed(f"the proxy does not reach {self._host}")
        elif isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            outcome = Unconfirmed(f"{self._host} cannot be reached: {kind_of(error)}")
            self._unreachable = outcome
        elif isinstance(error, (TimeoutError, httpx.TimeoutException)):
            outcome = RetryLater(f"{self._host} did not answer in {self._timeout:g} s")
        elif isinstance(error, (httpx.LocalProtocolError, *UNCARRIED)):
            outcome = Rejected(f"HTTP cannot carry it: {kind_of(error)}")
        else:
            outcome = RetryLater(f"{self._host} broke the connection: {kind_of(error)}")
        return outcome

    async def _answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Send a request; return the status of the answer, and its Retry-After."""
        found: tuple[int, str | None] | None = None
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._client.send(request, stream=True)
                found = response.status_code, response.headers.get("retry-after")
                try:
                    size = 0
                    async for chunk in response.aiter_raw():
                        size += len(chunk)
                        if size > MAX_RESPONSE:
                            break
                finally:
                    await response.aclose()
        except (TimeoutError, self._httpx.HTTPError):
            if found is None:
                raise
        return found

    def _outcome_of(self, status: int, later: str | None) -> Outcome:
        said = f"{self._host} answered {status}"
        if status in BUSY:
            now = time.monotonic()
            self._busy += now >= self._open_at  # once for requests that were under way together
            wait = _seconds(later)
            wait = backoff(self._busy, 1.0, 60.0) if wait is None else wait
            self._open_at = max(self._open_at, now + wait)
            return Unconfirmed(said)
        self._busy = 0
        if 200 <= status < 300:  # noqa: PLR2004
            return Sent()
        if status == 410:  # noqa: PLR2004
            self._unreachable = Gone(said)
            return self._unreachable
        if 300 <= status < 400:  # noqa: PLR2004
            return RetryLater(f"{said}: redirects are not followed. Use the URL that it leads to")
        return RetryLater(said)

    def _headers(self, message: BrokerMessage) -> dict[str, str]:
        """Return the headers of a request, with its signatures."""
        now = datetime.now(UTC)
        body = message.body.decode()  # the library signs text, and encodes it again to these bytes
        proof = {
            "id": message.id,
            "timestamp": str(int(now.timestamp())),
            "signature": self._signer.sign(message.id, now, body),
        }
        headers = {"user-agent": "durable-notify"} | dict(self._options.headers)
        headers |= _carried(message) | {"content-type": message.content_type}
        for prefix in filter(None, ("webhook-", self._options.header_prefix)):
            headers |= {prefix + name: value for name, value in proof.items()}
        return headers

    def _refusal(self, error: Any) -> str:
        """Return why an address is refused. The URL may have a token: it is not quoted."""
        address = getattr(error, "address", "")
        about = f"{self._host} ({address})" if address and address != self._host else self._host
        why = error.reason.partition(". A name")[0]
        return f"{about} is refused: {why}. If it is meant, allow its network: --allow"


async def send_test(url: str, options: WebhookOptions | None = None) -> Outcome:
    """Send a message ``{"type": "durable_notify.test", ...}`` to a URL.

    Raises:
        BrokerUnavailable: it cannot be reached.
        InvalidArgument: the URL or the options cannot work.
    """
    return await try_out(Relay(url, options))


async def try_out(relay: Relay) -> Outcome:
    """Send a test message; see ``send_test``."""
    now = datetime.now(UTC)
    body = {"type": "durable_notify.test", "timestamp": now.isoformat(), "data": {}}
    message = BrokerMessage(
        id=f"test-{time.time_ns()}", topic="durable_notify.test", key=None,
        body=json.dumps(body).encode(), content_type="application/json", headers={},
        published_at=now, route={}, ordering_key=None,
    )  # fmt: skip
    try:
        await relay.connect(None)  # type: ignore[arg-type]  # it has no fields
        (outcome,) = await relay.send([message], lambda *_: None)
    finally:
        await relay.close()
    return outcome


def _guarded_client(policy: Any, seconds: float, options: WebhookOptions) -> Any:
    """Return a client that checks each address at the moment at which it connects to it.

    Trap: a check of the URL is not enough, because its name may lead elsewhere when the client
    looks it up again. Redirects and proxies of the environment are not followed.
    """
    httpx, guard = client_of("webhooks", "httpx", "ssrfguard.httpx")
    about = {
        "follow_redirects": False,
        "trust_env": False,
        "verify": _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
        "limits": httpx.Limits(
            max_connections=options.concurrency,
            max_keepalive_connections=options.concurrency,
            keepalive_expiry=KEEP,
        ),
        # All attempts to connect end before the request's time does: then nothing was sent.
        "timeout": httpx.Timeout(seconds, connect=seconds / (ADDRESSES + 1)),
    }
    if options.proxy is not None:
        return httpx.AsyncClient(proxy=options.proxy, **about)
    return guard.AsyncClient(policy=policy, resolver=_resolver, **about)


@functools.cache
def _trusted(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return the authorities that the machine trusts, or those that are named; httpx has its own.

    Once: a thousand endpoints would have a thousand copies.
    """
    del file, folder  # it reads these variables itself
    return ssl.create_default_context()


def _carried(message: BrokerMessage) -> dict[str, str]:
    """Return the headers of a message, and its origin.

    Trap: with its own name, a publisher's ``host``, ``authorization`` or ``x-forwarded-for`` would
    speak for the relay.
    """
    headers = {
        "durable-notify-id": message.id,
        "durable-notify-topic": quote(message.topic, safe=_PRINTABLE),
    }
    if message.key is not None:
        headers["durable-notify-key"] = quote(message.key, safe=_PRINTABLE)
    for given, value in message.headers.items():
        name = given.lower()
        name = f"ce-{name[3:]}" if name.startswith("ce_") else name
        if not _KNOWN.fullmatch(name):
            name = _PREFIX + quote(name, safe=_NAME)
        headers[name] = quote(value, safe=_PRINTABLE)
    return headers


def _flaw(message: BrokerMessage) -> str | None:
    if len(message.body) > MAX_BODY:
        return f"its body has {len(message.body)} bytes, and a webhook's at most {MAX_BODY}"
    size = sum(len(name) + len(value) for name, value in _carried(message).items())
    if size > MAX_HEADERS:
        return f"its headers have {size} bytes, and a webhook's at most {MAX_HEADERS}"
    try:
        message.body.decode()
    except UnicodeDecodeError:
        return "its payload is not text, which Standard Webhooks cannot sign: use --cloudevents"
    return None


def _seconds(later: str | None) -> float | None:
    """Return the seconds of a Retry-After: a number, or a date; None if it says neither."""
    if later is None:
        return None
    if re.fullmatch("[0-9]{1,9}", later.strip()):
        return min(float(later), LONGEST)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        moment = email.utils.parsedate_to_datetime(later)
        return min(max(0.0, moment.timestamp() - time.time()), LONGEST)
    return None
