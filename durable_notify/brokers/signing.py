"""Secrets that webhooks are signed with: where they are, and read again when they change."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..endpoints import checked_secret, read_keys, read_places
from ..errors import InvalidArgument
from .broker import client_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..endpoints import WebhookEndpoint

__all__ = ["DerivedSecrets", "PlacedSecrets", "Secrets", "Signer"]

log = logging.getLogger("durable_notify")

#: How often to look whether a file with secrets has changed, in seconds.
LOOK = 1.0


class Secrets(Protocol):
    """The secrets of an endpoint, as they are now."""

    def current(self) -> Sequence[str]:
        """Return them; a receiver needs one of them to verify."""


class _Files:
    """Tells whether files have changed since they were read."""

    def __init__(self, places: Sequence[str]) -> None:
        self._paths = [Path(place[5:]) for place in places if place.startswith("file:")]
        self._seen = self._look()
        self._at = time.monotonic()

    def changed(self) -> bool:
        now = time.monotonic()
        if not self._paths or now - self._at < LOOK:
            return False
        self._at = now
        before, self._seen = self._seen, self._look()
        return self._seen != before

    def _look(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths:
            stat = None
            with contextlib.suppress(OSError):
                stat = path.stat()
            found.append(None if stat is None else (stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return found


class PlacedSecrets:
    """Secrets at some places; those in files are read again when the files change.

    Raises:
        InvalidArgument: there is none at a place, or one cannot work.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self._places = tuple(places)
        self._files = _Files(self._places)  # Trap: before they are read, or a change is overlooked
        self._secrets = self._read()

    def current(self) -> Sequence[str]:
        """Return the secrets. While a file cannot be read, they are as before."""
        if self._files.changed():
            try:
                self._secrets = self._read()
                log.info("the secrets at %s were read again", ", ".join(self._places))
            except InvalidArgument as error:
                log.warning("secrets are as before: %s", error)
        return self._secrets

    def _read(self) -> list[str]:
        found = [checked_secret(word, place) for word, place in read_places(self._places)]
        if not found:
            raise InvalidArgument("a webhook needs a secret to sign with: env:NAME or file:PATH")
        return found


class Keys:
    """The keys from which secrets of endpoints are derived, read again when their file changes."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._files = _Files([place])
        self._keys: list[str] | None = None

    def current(self) -> list[str]:
        """Return the keys. Raises InvalidArgument if there are none."""
        if self._keys is None or self._files.changed():
            try:
                self._keys = read_keys(self._place)
            except InvalidArgument as error:
                if self._keys is None:
                    raise
                log.warning("keys are as before: %s", error)
        return self._keys


class DerivedSecrets:
    """The secrets of an endpoint that are derived from keys."""

    def __init__(self, endpoint: WebhookEndpoint, keys: Keys) -> None:
        self._endpoint, self._keys = endpoint, keys
        keys.current()

    def current(self) -> Sequence[str]:
        """Return the secrets that are valid now."""
        return self._endpoint.signing_secrets(self._keys.current(), datetime.now(UTC))


class Signer:
    """Signs bodies by Standard Webhooks, with each of some secrets."""

    def __init__(self, secrets: Secrets) -> None:
        (self._library,) = client_of("webhooks", "standardwebhooks")
        self._secrets = secrets
        self._signers: dict[str, Any] = {}

    def sign(self, message_id: str, at: datetime, body: str) -> str:
        """Return the signatures of a body, with spaces between."""
        secrets = self._secrets.current()
        if self._signers.keys() != set(secrets):
            self._signers = {secret: self._library.Webhook(secret) for secret in secrets}
        return " ".join(self._signers[secret].sign(message_id, at, body) for secret in secrets)
