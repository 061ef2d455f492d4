"""Changing the options of a group."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException

from .._async.admin.admin import AsyncAdmin
from ..groups import LIMITS, delays_of, with_retry_policy
from .plans import Form, Plan, at_once, needed

__all__ = ["configure"]


def _yes(text: str) -> bool:
    return {"yes": True, "no": False}[text]


#: The names in forms, and how they are read; as ``durable-notify group configure`` has them.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "order_by": str,
    "exclusive": _yes,
    "max_attempts": int,
    "retry_base": float,
    "retry_factor": float,
    "retry_max": float,
    "retry_delays": delays_of,
    "on_expiry": str,
    "park_limit": int,
    "max_in_flight": int,
    "rate_limit": float,
}


async def configure(connection: Any, form: Form) -> Plan:
    """Return the plan of a change of options: of those that differ."""
    group = needed(form, "group")
    infos = await AsyncAdmin().groups(connection, group)
    if not infos:
        raise HTTPException(404, f"There is no group {group!r}.")
    changes = _changes(form, infos[0])
    if not changes:
        raise HTTPException(400, "Nothing would change.")
    settings: Any = with_retry_policy(changes)

    async def do(connection: Any, _: str | None) -> str:
        await AsyncAdmin().configure(connection, group, **settings)
        return f"{group} has its new options. Running consumers use them at once."

    words = ["durable-notify", "group", "configure", group]
    for name, value in changes.items():
        words += _option(name, value)
    text = ", ".join(f"{name}: {_shown(value)}" for name, value in changes.items())
    fields = {
        name: "" if value is None else _shown(value).lower() for name, value in changes.items()
    }
    return Plan(
        f"Change options of {group}: {text}.", shlex.join(words), at_once(do),
        {"group": group, **fields}, None,
    )  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _option(name: str, value: Any) -> list[str]:
    """Return an option of the command line."""
    if name == "exclusive":
        return ["--exclusive" if value else "--shared"]
    shown = _shown(value) if isinstance(value, list) else str(value or 0)
    return [f"--{name.replace('_', '-')}", shown]


def _changes(form: Form, before: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, read in OPTIONS.items():
        if name not in form:
            continue
        text = form[name].strip()
        try:
            value = read(text) if text else None
        except KeyError as error:
            raise HTTPException(400, f"{name} is yes or no, not {text!r}.") from error
        except ValueError as error:
            kind = "a list of seconds, such as 5,300" if read is delays_of else "a number"
            raise HTTPException(400, f"{name} is {kind}, not {text!r}.") from error
        if value is None and name not in LIMITS:
            raise HTTPException(400, f"{name} is missing.")
        if value != getattr(before, name):
            found[name] = value
    return found
