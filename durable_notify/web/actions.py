"""What users do: each is counted and shown first, then confirmed, then done once.

An action says what it would do, and how the command line does the same. Nothing acts on GET.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

from starlette.exceptions import HTTPException

from .._async.admin import AsyncAdmin
from ..groups import RetryPolicy
from .conditions import Conditions, moment, number
from .database import rows
from .queries import DEAD_COUNT, RETRY_COUNT

__all__ = ["ACTIONS_BY_NAME", "Action", "Plan"]

Form = Mapping[str, str]
#: A change of group options: the names in forms, and how they are read.
OPTIONS: dict[str, Callable[[str], Any]] = {
    "max_attempts": int,
    "retry_base": float,
    "retry_factor": float,
    "retry_max": float,
    "max_in_flight": int,
    "rate_limit": float,
}
_REMOVABLE = ("max_in_flight", "rate_limit")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        what: in a sentence.
        command: the command line that does the same.
        do: does it, with a connection and the reason; returns what was done, in a sentence.
        form: the fields that the confirmation sends; they say the same, whatever happens meanwhile.
        topic: the topic that it is about; None: all topics of the group.
    """

    what: str
    command: str
    do: Callable[[Any, str | None], Awaitable[str]]
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


def _needed(form: Form, name: str) -> str:
    value = form.get(name, "").strip()
    if not value:
        raise HTTPException(400, f"{name} is missing.")
    return value


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def _chosen(form: Form) -> tuple[str, Conditions]:
    """Return the group and the conditions; what comes after this moment is not meant."""
    wanted = Conditions.of(form)
    if wanted.until is None and not wanted.ids:
        wanted = dataclasses.replace(wanted, until=datetime.now(UTC))
    return _needed(form, "group"), wanted


async def _counted(connection: Any, query: LiteralString, wanted: Conditions) -> str:
    ((count,),) = [each.values() for each in await rows(connection, query, wanted.params)]
    return _messages(count)


def _on_dead_letters(change: Callable[..., Awaitable[int]], what: str, done: str) -> Planner:
    """Return the plan of a change of dead letters; its texts have {messages} and {group}."""

    async def plan(connection: Any, form: Form) -> Plan:
        group, wanted = _chosen(form)
        messages = await _counted(connection, DEAD_COUNT, wanted)

        async def do(connection: Any, why: str | None) -> str:
            count = await change(AsyncAdmin(), connection, group, why=why, **wanted.chosen)
            return done.format(messages=_messages(count), group=group)

        command = f"durable-notify dead-letters {change.__name__} {wanted.options}"
        text = what.format(messages=messages, group=group)
        return Plan(text, command, do, wanted.form, wanted.topic)

    return plan


async def _retry_now(connection: Any, form: Form) -> Plan:
    wanted = Conditions.of(form)
    group = _needed(form, "group")
    chosen: dict[str, Any] = wanted.chosen or {"everything": True}
    messages = await _counted(connection, RETRY_COUNT, wanted)

    async def do(connection: Any, why: str | None) -> str:
        done = await AsyncAdmin().retry_now(connection, group, why=why, **chosen)
        return f"{_messages(done)} redelivered to {group} now."

    return Plan(
        f"Redeliver {messages} to {group} now, instead of later.",
        f"durable-notify retries now {wanted.options}", do, wanted.form, wanted.topic,
    )  # fmt: skip


async def _replay(connection: Any, form: Form) -> Plan:
    group, topic = _needed(form, "group"), _needed(form, "topic")
    conditions = {
        "after": number("after", form.get("after")), "upto": number("upto", form.get("upto")),
        "since": moment("since", form.get("since")), "until": moment("until", form.get("until")),
        "keys": form.get("key") or None, "path": form.get("path") or None,
    }  # fmt: skip
    given: dict[str, Any] = {k: v for k, v in conditions.items() if v is not None}
    limit = form.get("rate_limit") or None
    try:
        rate = None if limit is None else float(limit)
    except ValueError as error:
        raise HTTPException(400, f"The most a second is a number, not {limit!r}.") from error
    total = await AsyncAdmin().start_replay(connection, group, topic, dry_run=True, **given)

    async def do(connection: Any, why: str | None) -> str:
        job = await AsyncAdmin().start_replay(
            connection, group, topic, rate_limit=rate, why=why, **given
        )
        return f"Replay {job} has begun. The group's consumers carry it out."

    words = ["durable-notify", "replay-job", "start", "--group", group, "--topic", topic]
    for name, value in given.items():
        option = "--key" if name == "keys" else f"--{name}"
        words += [option, value.isoformat() if isinstance(value, datetime) else str(value)]
    words += ["--rate-limit", str(limit)] if limit else []
    fields = ("group", "topic", "after", "upto", "since", "until", "key", "path", "rate_limit")
    return Plan(
        f"Redeliver {_messages(total)} of {topic} to {group}, beside new ones. Handlers run again:"
        " what they did before, they do again, unless they ask once().",
        shlex.join(words), do, {name: form[name] for name in fields if form.get(name)}, topic,
    )  # fmt: skip


async def _cancel_replay(connection: Any, form: Form) -> Plan:
    job = number("job", _needed(form, "job"))
    found = [each for each in await AsyncAdmin().replay_jobs(connection) if each.id == job]
    if not found or job is None:
        raise HTTPException(404, f"There is no replay {job}.")

    async def do(connection: Any, _: str | None) -> str:
        done = await AsyncAdmin().cancel_replay(connection, job)
        return f"Replay {job} is cancelled." if done else f"Replay {job} was over."

    return Plan(
        f"End replay {job}. What it has not delivered yet is not redelivered.",
        f"durable-notify replay-job cancel {job}", do, {"job": str(job)}, found[0].topic,
    )  # fmt: skip


async def _seek(connection: Any, form: Form) -> Plan:
    group, topic = _needed(form, "group"), _needed(form, "topic")
    to = form.get("to", "")
    at: dict[str, Any]
    if to == "now":
        at, option = {"now": True}, ["--now"]
    elif to == "after":
        after = number("after", _needed(form, "after"))
        at, option = {"after": after}, ["--after", str(after)]
    elif to == "since":
        since = moment("since", _needed(form, "since"))
        at, option = {"since": since}, ["--since", _needed(form, "since")]
    else:
        raise HTTPException(400, "Say where to: an id, a time, or now.")
    found = await AsyncAdmin().seek(connection, group, topic, dry_run=True, **at)

    async def do(connection: Any, why: str | None) -> str:
        done = await AsyncAdmin().seek(connection, group, topic, why=why, **at)
        return f"{done.redelivered:,} are redelivered, {done.skipped:,} were skipped."

    words = ["durable-notify", "seek", "--group", group, "--topic", topic, *option]
    fields = {
        name: form[name] for name in ("group", "topic", "to", "after", "since") if form.get(name)
    }
    return Plan(
        f"Move {group} in {topic}: {found.redelivered:,} would be redelivered,"
        f" {found.skipped:,} skipped.", shlex.join(words), do, fields, topic,
    )  # fmt: skip


def _on_group(change: Callable[..., Awaitable[None]], what: str, done: str) -> Planner:
    """Return the plan of a change of a whole group; its texts have {group}."""

    async def plan(_: Any, form: Form) -> Plan:
        group = _needed(form, "group")

        async def do(connection: Any, _: str | None) -> str:
            await change(AsyncAdmin(), connection, group)
            return done.format(group=group)

        command = shlex.join(["durable-notify", "group", change.__name__, group])
        return Plan(what.format(group=group), command, do, {"group": group}, None)

    return plan


async def _configure(connection: Any, form: Form) -> Plan:
    group = _needed(form, "group")
    infos = [each for each in await AsyncAdmin().groups(connection) if each.name == group]
    if not infos:
        raise HTTPException(404, f"There is no group {group!r}.")
    changes = _changes(form, infos[0])
    if not changes:
        raise HTTPException(400, "Nothing would change.")

    async def do(connection: Any, _: str | None) -> str:
        await AsyncAdmin().configure(connection, group, **_settings(changes))
        return f"{group} has its new options. Running consumers use them at once."

    words = ["durable-notify", "group", "configure", group]
    for name, value in changes.items():
        words += [f"--{name.replace('_', '-')}", str(value or 0)]
    text = ", ".join(f"{name}: {'none' if v is None else v}" for name, v in changes.items())
    fields = {name: "" if value is None else str(value) for name, value in changes.items()}
    return Plan(
        f"Change options of {group}: {text}.",
        shlex.join(words),
        do,
        {"group": group, **fields},
        None,
    )


def _settings(changes: Mapping[str, Any]) -> Any:
    retry = {
        short: changes[name]
        for name, short in (
            ("max_attempts", "max_attempts"), ("retry_base", "base"), ("retry_factor", "factor"),
            ("retry_max", "max"),
        )
        if name in changes
    }  # fmt: skip
    rest = {name: changes[name] for name in _REMOVABLE if name in changes}
    return {**rest, **({"retry": RetryPolicy(**retry)} if retry else {})}


def _changes(form: Form, before: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, read in OPTIONS.items():
        if name not in form:
            continue
        text = form[name].strip()
        try:
            value = read(text) if text else None
        except ValueError as error:
            raise HTTPException(400, f"{name} is a number, not {text!r}.") from error
        if value is None and name not in _REMOVABLE:
            raise HTTPException(400, f"{name} is missing.")
        if value != getattr(before, name):
            found[name] = value
    return found


async def _publish(_: Any, form: Form) -> Plan:
    """Publish an edited dead letter again, as a new message that names its origin."""
    topic, origin = _needed(form, "topic"), number("id", form.get("id"))
    text = _needed(form, "payload")
    try:
        headers = json.loads(form.get("headers") or "{}")
        json.loads(text)
    except ValueError as error:
        raise HTTPException(400, f"This is not JSON: {error}") from error
    if not isinstance(headers, dict):
        raise HTTPException(400, "Headers are a JSON object.")
    named = {**headers, **({"resent-from": str(origin)} if origin is not None else {})}

    async def do(connection: Any, _: str | None) -> str:
        # As text: numbers keep every digit.
        cursor = await connection.execute(
            "SELECT durable_notify.publish(%s, %s::jsonb, %s, %s::jsonb)",
            (topic, text, form.get("key") or None, json.dumps(named)),
        )
        ((new,),) = await cursor.fetchall()
        return f"Published to {topic} as message {new}."

    words = ["durable-notify", "publish", topic, text]
    words += ["--key", form["key"]] if form.get("key") else []
    for name, value in named.items():
        words += ["--header", f"{name}={value}"]
    fields = {
        name: form[name] for name in ("topic", "id", "payload", "key", "headers") if form.get(name)
    }
    return Plan(
        f"Publish this to {topic} as a new message, for all of its groups.",
        shlex.join(words), do, fields, topic,
    )  # fmt: skip


ACTIONS_BY_NAME = {
    "redrive": Action(
        "redrive",
        "Redrive",
        _on_dead_letters(
            AsyncAdmin.redrive,
            "Send {messages} to {group} again, as first attempts.",
            "{messages} sent to {group} again.",
        ),
    ),
    "discard": Action(
        "discard",
        "Discard",
        _on_dead_letters(
            AsyncAdmin.discard,
            "Delete {messages} that {group} has given up. This cannot be taken back.",
            "{messages} of {group} discarded.",
        ),
        danger=True,
    ),
    "retry-now": Action("retry", "Retry now", _retry_now),
    "replay": Action("replay", "Replay", _replay),
    "cancel-replay": Action("replay", "Cancel the replay", _cancel_replay),
    "seek": Action("seek", "Seek", _seek, danger=True),
    "pause": Action(
        "pause",
        "Pause",
        _on_group(
            AsyncAdmin.pause,
            "Deliver nothing more to {group}, until it is resumed. Leased messages can be settled.",
            "{group} is paused.",
        ),
        danger=True,
    ),
    "resume": Action(
        "pause",
        "Resume",
        _on_group(AsyncAdmin.resume, "Deliver to {group} again.", "{group} is resumed."),
    ),
    "configure": Action("configure", "Change options", _configure),
    "publish": Action("publish", "Publish", _publish),
}
