"""Who may see and do what on the dashboard."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from ..errors import InvalidArgument
from ..topics import matches

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["ACTIONS", "Access", "Authorize", "access_of", "no_topic"]

#: What a user may be allowed to do. Seeing needs no action.
ACTIONS = frozenset(
    {"redrive", "discard", "replay", "seek", "pause", "configure", "retry", "publish"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """What a user of the dashboard may see and do.

    The rights of the dashboard's database role hold in any case: this can only narrow them.

    Args:
        user: the user's name; it stands in the audit log beside what they do.
        actions: what they may do, of ``ACTIONS``; none: they only look.
        topics: names or patterns of the topics that they see. A group is seen if it has one of
            them.
        payloads: whether they see payloads, headers and error texts. Keys are always seen.
    """

    user: str
    actions: AbstractSet[str] = frozenset()
    topics: tuple[str, ...] = (">",)
    payloads: bool = True

    def __post_init__(self) -> None:
        if unknown := set(self.actions) - ACTIONS:
            raise InvalidArgument(
                f"no such action: {', '.join(sorted(unknown))}; there are: "
                f"{', '.join(sorted(ACTIONS))}"
            )

    def may(self, action: str) -> bool:
        """Return whether the user may do this."""
        return action in self.actions

    @property
    def sees_all(self) -> bool:
        """Whether the user sees all topics."""
        return ">" in self.topics

    def sees(self, topic: str) -> bool:
        """Return whether the user may see a topic."""
        return self.sees_all or any(matches(topic, pattern) for pattern in self.topics)


#: Decides what a request may see and do; None: nothing.
Authorize = Callable[["Request"], "Access | Awaitable[Access | None] | None"]


async def access_of(request: Request, authorize: Authorize) -> Access:
    """Return the access of a request.

    Raises:
        HTTPException: it has none.
    """
    found = authorize(request)
    if inspect.isawaitable(found):
        found = await found
    if found is None:
        raise HTTPException(403, "You may not see this dashboard.")
    return found


def no_topic(topic: str) -> HTTPException:
    """Return the error of a topic that a user does not see, whether or not it exists."""
    return HTTPException(404, f"There is no topic {topic!r}, or you may not see it.")
