"""Endpoints of webhooks: what an endpoint is, and its secrets."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from ._core.checks import check_count, unknown_option
from .durations import Seconds, in_seconds
from .errors import InvalidArgument
from .groups import RetryPolicy
from .topics import check_topics

__all__ = [
    "KEY", "RETRY", "WebhookEndpoint", "WebhookSettings", "check_headers", "checked_secret",
    "derived_secret", "read_keys", "read_places", "stored",
]  # fmt: skip

#: What a new group gets: 5 s, 40 s, 5 min, 43 min, 5.7 h, then each 10 h: nearly three days.
RETRY = RetryPolicy(base=5, factor=8, max=36_000, max_attempts=12)
#: Where the key is from which the secrets of endpoints are derived.
KEY = "env:DURABLE_NOTIFY_WEBHOOK_KEY"
#: The fewest characters of a key.
SHORTEST = 32
#: Of headers, what the relay and HTTP write themselves.
_OURS = re.compile(
    r"webhook-.*|durable-notify-.*|ce-.*|host|content-.*|transfer-encoding|connection|upgrade|te"
    r"|trailer|keep-alive|proxy-.*|expect"
)
_NAME = re.compile(r"[a-z0-9!#$&'*+.^_`|~-]{1,100}")
_SECRET_SIZES = range(24, 65)


class WebhookSettings(TypedDict, total=False):
    """What an endpoint has besides its name.

    Attributes:
        url: where its messages are sent: ``https://HOST/PATH``.
        topics: the topics or patterns that it gets.
        secrets: where its secrets are: ``env:NAME`` or ``file:PATH``, as the relay sees them. None:
            they are derived from the relay's key, so that nothing is stored.
        filter: which messages it gets, of those of its topics: ``key`` (one, or a list), and what
            ``headers`` and ``payload`` contain, as ``@>`` of jsonb.
        headers: further headers of each request. They are stored as they are, so that nothing that
            must stay secret belongs there.
        header_prefix: sends the three headers of a signature once more, with this instead of
            ``webhook-``, for receivers that used another service: ``"svix-"``.
        cloudevents: send each message as a CloudEvent in the JSON format.
        timeout: how long a request may take; 15 seconds.
        concurrency: how many requests may be under way at once; 10.
        pause_after: for how long it may fail before it is paused; 5 days. 0: for ever.
    """

    url: str
    topics: Iterable[str]
    secrets: Sequence[str]
    filter: Mapping[str, Any] | None
    headers: Mapping[str, str] | None
    header_prefix: str | None
    cloudevents: bool | None
    timeout: Seconds | None
    concurrency: int | None
    pause_after: Seconds | None


@dataclasses.dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """An endpoint of webhooks: a group, and the URL to which its messages are sent.

    Attributes:
        name: its name, and that of its group.
        url: it may have a token, so that it is not shown.
        options: what was set of ``WebhookSettings``, besides ``url``, ``topics`` and ``secrets``.
        salt: what its derived secrets have in common with no others.
        old_secret_until: until when the secret before the current one is valid.
        failing_since: since when it fails; None: it works, or has not been tried.
        failure: how it failed last.
        paused_at: since when it is paused, by hand or because it failed; the audit says why.
    """

    name: str
    url: str = dataclasses.field(repr=False)
    topics: list[str]
    options: dict[str, Any] = dataclasses.field(repr=False)
    secrets: list[str]
    salt: str = dataclasses.field(repr=False)
    secret_version: int
    old_secret_until: datetime | None
    failing_since: datetime | None
    failure: str | None
    paused_at: datetime | None
    created_at: datetime
    changed_at: datetime
    exclusive: bool = dataclasses.field(repr=False)

    @property
    def host(self) -> str:
        """The host of its URL, which may be shown."""
        return urlsplit(self.url).hostname or ""

    def signing_secrets(self, keys: Sequence[str], now: datetime) -> list[str]:
        """Return its derived secrets: the current one, and the one before while that is valid.

        Args:
            keys: the keys to derive from; several while one replaces another.
        """
        versions = [self.secret_version]
        if self.old_secret_until is not None and now < self.old_secret_until:
            versions.append(self.secret_version - 1)
        return [derived_secret(key, self.salt, version) for key in keys for version in versions]


def derived_secret(key: str, salt: str, version: int) -> str:
    """Return a secret of an endpoint, as Standard Webhooks writes it."""
    text = f"durable_notify webhook {salt} {version}".encode()
    mac = hmac.digest(key.encode(), text, "sha256")
    return "whsec_" + base64.b64encode(mac).decode()


def stored(settings: WebhookSettings) -> dict[str, Any]:
    """Return settings as the database has them: JSON, with times in seconds.

    Raises:
        InvalidArgument: there is no such setting, or its value is invalid.
    """
    names = WebhookSettings.__annotations__
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in names:
            raise unknown_option("an endpoint", name, names, {})
        found[name] = None if value is None else _CHECKS[name](value)
    return found


def _checked_url(url: Any) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme.lower() in {"https", "http"} and bool(parts.hostname)
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        valid = False
    if not valid or parts.username is not None or re.search(r"[\x00-\x20\x7f-\xa0]", url):
        raise InvalidArgument("write a webhook's URL as https://HOST/PATH, without a password")
    return str(url)


def _checked_filter(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not given.keys() <= {"key", "headers", "payload"}:
        raise InvalidArgument("filter is an object with key, headers or payload")
    try:
        return dict(json.loads(json.dumps(given, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"filter is not JSON: {error}") from error


def _checked_secrets(places: Any) -> list[str]:
    if isinstance(places, str) or not all(
        isinstance(place, str) and re.match("(env|file):.", place) for place in places
    ):
        raise InvalidArgument("secrets are a list of places: env:NAME or file:PATH")
    return list(places)


def _checked_prefix(prefix: Any) -> str:
    if not isinstance(prefix, str) or not re.fullmatch("[a-z][a-z0-9-]{0,40}-", prefix):
        raise InvalidArgument('header_prefix is lower case and ends with -: "svix-"')
    return prefix


def _checked_timeout(seconds: Any) -> float:
    found = in_seconds("timeout", seconds)
    if not 1 <= found <= 300:  # noqa: PLR2004 - a browser's patience, and a proxy's
        raise InvalidArgument("timeout is 1 to 300 seconds")
    return found


def _checked_concurrency(number: Any) -> int:
    check_count("concurrency", number, 100)
    return int(number)


def check_headers(given: Any) -> dict[str, str]:
    """Return further headers of requests, their names in lower case.

    Raises:
        InvalidArgument: one is not valid, or the relay sets it itself. It does not quote a value.
    """
    if not isinstance(given, Mapping):
        raise InvalidArgument('headers are given by name: {"authorization": "Bearer ..."}')
    found = {}
    for name, value in given.items():
        lower = str(name).lower()
        if not _NAME.fullmatch(lower) or _OURS.fullmatch(lower):
            raise InvalidArgument(f"header {name!r} cannot be set: choose another name")
        if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*)", value):
            raise InvalidArgument(f"the value of header {name!r} is no visible ASCII text")
        found[lower] = value
    return found


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "url": _checked_url,
    "topics": lambda topics: list(check_topics(topics)),
    "secrets": _checked_secrets,
    "filter": _checked_filter,
    "headers": check_headers,
    "header_prefix": _checked_prefix,
    "cloudevents": bool,
    "timeout": _checked_timeout,
    "concurrency": _checked_concurrency,
    "pause_after": lambda seconds: in_seconds("pause_after", seconds, zero=True),
}


def read_places(places: Sequence[str]) -> list[tuple[str, str]]:
    """Return the words at some places, each with its place: ``env:NAME`` or ``file:PATH``.

    Raises:
        InvalidArgument: there is nothing. No error quotes what is there.
    """
    found: list[tuple[str, str]] = []
    for place in places:
        kind, _, name = place.partition(":")
        if kind == "env":
            text = os.environ.get(name, "")
        elif kind == "file":
            try:
                text = Path(name).read_text()
            except (OSError, ValueError) as error:
                why = type(error).__name__
                raise InvalidArgument(f"the secret at {place} cannot be read: {why}") from None
        else:
            raise InvalidArgument("write where the secret is: env:NAME or file:PATH")
        if not text.split():
            raise InvalidArgument(
                f"there is no webhook secret at {place}: write whsec_ and 24 to 64 bytes as "
                "base64 there"
            )
        found += [(word, place) for word in text.split()]
    return found


def read_keys(place: str) -> list[str]:
    """Return the keys at a place, from which secrets are derived: the newest first.

    Raises:
        InvalidArgument: there is none, or one is too short.
    """
    try:
        keys = [word for word, _ in read_places([place])]
    except InvalidArgument as error:
        raise InvalidArgument(
            f"there is no key at {place}, from which the secrets of endpoints are derived: write "
            f"at least {SHORTEST} random characters there"
        ) from error
    if any(len(key) < SHORTEST for key in keys):
        raise InvalidArgument(f"the key at {place} has fewer than {SHORTEST} characters")
    return keys


def checked_secret(secret: str, place: str) -> str:
    """Return a secret. Raises InvalidArgument, without quoting it, if it cannot work."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_") + "=="))
    except ValueError:
        size = 0
    if not secret.startswith("whsec_") or size not in _SECRET_SIZES:
        raise InvalidArgument(
            f"the secret at {place} cannot work: write whsec_ and 24 to 64 bytes as base64"
        )
    return secret
