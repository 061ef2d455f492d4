"""Who may use a dashboard that ``durable-notify web`` serves by itself."""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route

from ..errors import InvalidArgument
from .access import ACTIONS, Access
from .site import url

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Door", "is_loopback"]

COOKIE = "durable_notify_session"
#: How long a session lasts, in seconds.
SESSION = 12 * 3600
#: The fewest characters of a password.
SHORTEST = 8


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclasses.dataclass(slots=True)
class Door:
    """Decides who may see and change what.

    Without a password and a header, each user who reaches the address looks. A browser that has
    opened the one-time address also writes. With a password or a header, each user who has passed
    writes, if ``write`` is set.

    Args:
        write: whether users may change anything.
        password: what browsers are asked for (HTTP Basic). The user's name is as they give it.
        header: the header in which a proxy names the user. Trap: who reaches the dashboard past the
            proxy can set it.
        topics: which topics are seen.
        payloads: whether payloads are seen.
    """

    write: bool = False
    password: str | None = None
    header: str | None = None
    topics: tuple[str, ...] = (">",)
    payloads: bool = True
    token: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(32))
    _session: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        if self.password is not None and len(self.password) < SHORTEST:
            raise InvalidArgument(
                f"the password of the dashboard has fewer than {SHORTEST} characters"
            )

    @property
    def is_closed(self) -> bool:
        """Whether it asks who is there."""
        return self.password is not None or self.header is not None

    @property
    def routes(self) -> list[Route]:
        """The page of the one-time address."""
        return [Route("/login", self._login)]

    def authorize(self, request: Request) -> Access:
        """Return what a request may see and do.

        Raises:
            HTTPException: the browser has to ask for the password, or the proxy named no user.
        """
        if self.header is not None:
            user = request.headers.get(self.header)
            if not user:
                raise HTTPException(403, f"The proxy has named no user in {self.header}.")
            return self._access(user, write=self.write)
        if self.password is not None:
            return self._access(self._asked(request), write=self.write)
        write = self.write and hmac.compare_digest(
            request.cookies.get(COOKIE, "").encode(), self._session.encode()
        )
        return self._access("local", write=write)

    def _access(self, user: str, *, write: bool) -> Access:
        actions = ACTIONS if write else frozenset[str]()
        return Access(user, actions, self.topics, self.payloads)

    def _asked(self, request: Request) -> str:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        given = ""
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                given = base64.b64decode(value, validate=True).decode()
        user, _, password = given.partition(":")
        known = (self.password or "").encode()
        if not user or not hmac.compare_digest(password.encode(), known):
            ask = {"www-authenticate": 'Basic realm="durable_notify", charset="UTF-8"'}
            raise HTTPException(401, "Give your name and the dashboard's password.", ask)
        return user

    async def _login(self, request: Request) -> Response:
        given = request.query_params.get("token", "")
        # Once: the address may stay in a browser's history, or in a terminal's.
        token, self.token = self.token, ""
        if not token or not hmac.compare_digest(given.encode(), token.encode()):
            self.token = token
            raise HTTPException(403, "This address was used before, or is wrong. Start it again.")
        answer = RedirectResponse(url(request, "/"), 303)
        answer.set_cookie(
            COOKIE, self._session, max_age=SESSION, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer
