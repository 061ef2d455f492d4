"""What an action is: a plan that is shown first, then confirmed, then done once."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.exceptions import HTTPException

__all__ = ["Action", "Done", "Form", "Lend", "Plan", "Planner", "at_once", "count_of", "needed"]

Form = Mapping[str, str]
#: Lends a connection within a transaction; each call another one.
Lend = Callable[[], AbstractAsyncContextManager[Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What was done, in a sentence, and how many messages are left to confirm again."""

    text: str
    left: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        what: in a sentence.
        command: the command line that does the same.
        do: does it, with connections and the reason.
        form: the fields that the confirmation sends; they say the same, whatever happens meanwhile.
        topic: the topic that it is about; None: all topics of the group.
    """

    what: str
    command: str
    do: Callable[[Lend, str | None], Awaitable[Done]]
    form: Mapping[str, str]
    topic: str | None


#: Reads a form, and counts, with a connection that only reads.
Planner = Callable[[Any, Form], Awaitable[Plan]]


@dataclasses.dataclass(frozen=True, slots=True)
class Action:
    """Something that a user may do.

    Attributes:
        right: what the user needs, of ``ACTIONS``.
        title: its name.
        plan: reads a form, and counts.
        danger: whether it cannot be taken back.
    """

    right: str
    title: str
    plan: Planner
    danger: bool = False


def at_once(
    do: Callable[[Any, str | None], Awaitable[str]],
) -> Callable[[Lend, str | None], Awaitable[Done]]:
    """Return what does something in one transaction."""

    async def done(lend: Lend, why: str | None) -> Done:
        async with lend() as connection:
            return Done(await do(connection, why))

    return done


def needed(form: Form, name: str) -> str:
    """Return a field of a form.

    Raises:
        HTTPException: it is empty.
    """
    value = form.get(name, "").strip()
    if not value:
        raise HTTPException(400, f"{name} is missing.")
    return value


def count_of(count: int) -> str:
    """Return a number of messages in words."""
    return f"{count:,} message{'' if count == 1 else 's'}"
