"""Webhooks: HTTP requests signed by Standard Webhooks, with httpx: the extra ``webhooks``.

A message is a POST of its payload to one URL. A mapping has no fields.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import email.utils
import json
import os
import re
import ssl
import time
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._core.checks import check_count
from .._core.pacing import backoff
from ..durations import Seconds, in_seconds
from ..errors import BrokerUnavailable, InvalidArgument
from ..groups import RetryPolicy
from .broker import (
    UNCARRIED,
    BrokerMessage,
    Gone,
    Rejected,
    RetryLater,
    Sent,
    Unconfirmed,
    by_ordering_key,
    client_of,
    kind_of,
    url_parts,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .broker import Outcome, Report
    from .routes import Routes

__all__ = ["RETRY", "Relay", "WebhookOptions", "send_test"]

#: What a new group gets: 5 s, 40 s, 5 min, 43 min, 5.7 h, then each 10 h: nearly three days.
RETRY = RetryPolicy(base=5, factor=8, max=36_000, max_attempts=12)
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
_SECRET_SIZES = range(24, 65)
#: Resolves the endpoint's name; None: as the machine does. Tests move a name meanwhile.
_resolver: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class WebhookOptions:
    """How to send to an endpoint.

    Args:
        secrets: where each secret is, never the secret itself: ``env:NAME`` or ``file:PATH``. A
            message is signed with all of them, so that a receiver can change from one to another.
            One place may have several secrets, with white space between.
        allow: networks that may be reached although they are not public, such as ``10.1.0.0/16``.
        timeout: how long one request may take, from the connection to the answer.
        concurrency: how many requests are under way at once.

    Raises:
        InvalidArgument: one of them cannot work.
    """

    secrets: Sequence[str] = ("env:DURABLE_NOTIFY_WEBHOOK_SECRET",)
    allow: Sequence[str] = ()
    timeout: Seconds = 15.0
    concurrency: int = 10

    def __post_init__(self) -> None:
        in_seconds("timeout", self.timeout)
        check_count("concurrency", self.concurrency)
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

    def __init__(self, url: str, options: WebhookOptions | None = None) -> None:
        self._httpx, self._guard, signing = client_of(
            "webhooks", "httpx", "ssrfguard", "standardwebhooks"
        )
        self._options = options or WebhookOptions()
        parts = url_parts(url)
        if not parts.hostname or parts.username is not None or parts.password is not None:
            raise InvalidArgument("write a webhook's URL as https://HOST/PATH, without a password")
        self._url = url
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
        self._signers = [signing.Webhook(one) for one in _secrets(self._options.secrets)]
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
        self._slots = asyncio.Semaphore(self._options.concurrency)
        self._unreachable: Outcome | None = None
        self._busy = 0  # how often in a row the endpoint could not take more
        self._open_at = 0.0  # when it may get more

    def check(self, field: str, template: str) -> None:
        """There is no field to check."""

    async def connect(self, routes: Routes) -> None:  # noqa: ARG002 - they have no fields
        """Connect, which sends nothing."""
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
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages: of each ordering key one after another, some at once."""
        self._unreachable = None
        if self._client is None:
            self._client = _guarded_client(self._policy, self._timeout, self._options.concurrency)
        return await by_ordering_key(messages, self._begin, report)

    async def _begin(self, message: BrokerMessage) -> Outcome | asyncio.Future[Outcome]:
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
        signatures = [one.sign(message.id, now, body) for one in self._signers]
        return _carried(message) | {
            "content-type": message.content_type,
            "user-agent": "durable-notify",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _refusal(self, error: Any) -> str:
        """Return why an address is refused. The URL may have a token: it is not quoted."""
        address = getattr(error, "address", "")
        about = f"{self._host} ({address})" if address and address != self._host else self._host
        why = error.reason.partition(". A name")[0]
        return f"{about} is refused: {why}. If it is meant, allow its network: --allow"


async def send_test(url: str, options: WebhookOptions | None = None) -> Outcome:
    """Send a message ``{"type": "durable_notify.test", ...}`` to an endpoint.

    Raises:
        BrokerUnavailable: it cannot be reached.
        InvalidArgument: the URL or the options cannot work.
    """
    relay = Relay(url, options)
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


def _guarded_client(policy: Any, seconds: float, concurrency: int) -> Any:
    """Return a client that checks each address at the moment at which it connects to it.

    Trap: a check of the URL is not enough, because its name may lead elsewhere when the client
    looks it up again. Redirects and proxies of the environment are not followed.
    """
    httpx, guard = client_of("webhooks", "httpx", "ssrfguard.httpx")
    return guard.AsyncClient(
        policy=policy,
        resolver=_resolver,
        follow_redirects=False,
        trust_env=False,
        # The authorities that the machine trusts, or SSL_CERT_FILE; httpx would bring its own.
        verify=ssl.create_default_context(),
        limits=httpx.Limits(
            max_connections=concurrency,
            max_keepalive_connections=concurrency,
            keepalive_expiry=KEEP,
        ),
        # All attempts to connect end before the request's time does: then nothing was sent.
        timeout=httpx.Timeout(seconds, connect=seconds / (ADDRESSES + 1)),
    )


def _secrets(places: Sequence[str]) -> list[str]:
    """Return the secrets at some places. No error quotes one."""
    found = []
    for place in places:
        kind, _, name = place.partition(":")
        if kind == "env":
            text = os.environ.get(name, "")
        elif kind == "file":
            try:
                text = Path(name).read_text()
            except (OSError, ValueError) as error:
                raise InvalidArgument(
                    f"the secret at {place} cannot be read: {kind_of(error)}"
                ) from None
        else:
            raise InvalidArgument("write where the secret is: env:NAME or file:PATH")
        if not text.split():
            raise InvalidArgument(
                f"there is no webhook secret at {place}: write whsec_ and 24 to 64 bytes as "
                "base64 there"
            )
        found += [_checked(secret, place) for secret in text.split()]
    if not found:
        raise InvalidArgument("a webhook needs a secret to sign with: env:NAME or file:PATH")
    return found


def _checked(secret: str, place: str) -> str:
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_") + "=="))
    except ValueError:
        size = 0
    if not secret.startswith("whsec_") or size not in _SECRET_SIZES:
        raise InvalidArgument(
            f"the secret at {place} cannot work: write whsec_ and 24 to 64 bytes as base64"
        )
    return secret


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
