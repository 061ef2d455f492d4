"""What users do: each is counted and shown first, then confirmed, then done once.

An action says what it would do, and how the command line does the same. Nothing acts on GET.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from starlette.exceptions import HTTPException

from .._async.admin.admin import AsyncAdmin
from .conditions import Conditions, moment, number
from .database import problem, rows
from .options import configure
from .plans import Action, Done, Form, Lend, Plan, Planner, at_once, count_of, needed
from .queries import DEAD_COUNT, DEAD_IDS, RETRY_COUNT

__all__ = ["ACTIONS_BY_NAME"]

#: How many messages a transaction changes: it holds the group's lock, for which claims wait.
BATCH = 1_000
#: For how many seconds a request changes messages; what is left is confirmed again.
PATIENCE = 15.0


def _chosen(form: Form) -> tuple[str, Conditions]:
    """Return the group and the conditions; what comes after this moment is not meant."""
    wanted = Conditions.of(form)
    if wanted.until is None and not wanted.ids:
        wanted = dataclasses.replace(wanted, until=datetime.now(UTC))
    return needed(form, "group"), wanted


async def _counted(connection: Any, query: LiteralString, wanted: Conditions) -> str:
    ((count,),) = [each.values() for each in await rows(connection, query, wanted.params)]
    return count_of(count)


def _on_dead_letters(change: Callable[..., Awaitable[int]], what: str, done: str) -> Planner:
    """Return the plan of a change of dead letters; its texts have {messages} and {group}."""

    async def plan(connection: Any, form: Form) -> Plan:
        group, wanted = _chosen(form)
        messages = await _counted(connection, DEAD_COUNT, wanted)

        async def do(lend: Lend, why: str | None) -> Done:
            async with lend() as reading:
                found = await rows(reading, DEAD_IDS, wanted.params)
            # The oldest first: in a group that keeps order, a key's messages died in their order.
            ids = list(dict.fromkeys(each["message_id"] for each in found))
            count, left = await _in_batches(change, lend, ids, group, {**wanted.chosen, "why": why})
            text = done.format(messages=count_of(count), group=group)
            return Done(text, left)

        command = f"durable-notify dead-letters {change.__name__} {wanted.options}"
        text = what.format(messages=messages, group=group)
        return Plan(text, command, do, wanted.form, wanted.topic)

    return plan


async def _in_batches(
    change: Callable[..., Awaitable[int]], lend: Lend, ids: list[int], group: str,
    chosen: Mapping[str, Any],
) -> tuple[int, int]:  # fmt: skip
    """Change messages, each batch in a transaction; return how many were, and how many are left."""
    count, until = 0, time.monotonic() + PATIENCE
    for first in range(0, len(ids), BATCH):
        if time.monotonic() > until:
            return count, len(ids) - first
        batch = {**chosen, "ids": ids[first : first + BATCH]}
        try:
            async with lend() as connection:
                count += await change(AsyncAdmin(), connection, group, **batch)
        except psycopg.Error as error:
            if not count:
                raise
            text = f"{count_of(count)} changed, the others not: {problem(error)}"
            raise HTTPException(400, text) from error
    return count, 0


def _on_retries(change: Callable[..., Awaitable[int]], what: str, done: str, verb: str) -> Planner:
    """Return the plan of a change of retries; its texts have {messages} and {group}."""

    async def plan(connection: Any, form: Form) -> Plan:
        wanted = Conditions.of(form)
        group = needed(form, "group")
        chosen: dict[str, Any] = wanted.chosen or {"everything": True}
        messages = await _counted(connection, RETRY_COUNT, wanted)

        async def do(connection: Any, why: str | None) -> str:
            count = await change(AsyncAdmin(), connection, group, why=why, **chosen)
            return done.format(messages=count_of(count), group=group)

        text = what.format(messages=messages, group=group)
        command = f"durable-notify retries {verb} {wanted.options}"
        return Plan(text, command, at_once(do), wanted.form, wanted.topic)

    return plan


async def _replay(connection: Any, form: Form) -> Plan:
    group, topic = needed(form, "group"), needed(form, "topic")
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
        raise HTTPException(400, f"The rate limit is a number, not {limit!r}.") from error
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
        f"Redeliver {count_of(total)} of {topic} to {group}, beside new ones. Handlers run again:"
        " what they did before, they do again, unless they ask once().",
        shlex.join(words), at_once(do),
        {name: form[name] for name in fields if form.get(name)}, topic,
    )  # fmt: skip


async def _cancel_replay(connection: Any, form: Form) -> Plan:
    job = number("job", needed(form, "job"))
    found = [each for each in await AsyncAdmin().replay_jobs(connection) if each.id == job]
    if not found or job is None:
        raise HTTPException(404, f"There is no replay {job}.")

    async def do(connection: Any, _: str | None) -> str:
        done = await AsyncAdmin().cancel_replay(connection, job)
        return f"Replay {job} is cancelled." if done else f"Replay {job} was over."

    return Plan(
        f"End replay {job}. What it has not delivered yet is not redelivered.",
        f"durable-notify replay-job cancel {job}", at_once(do), {"job": str(job)}, found[0].topic,
    )  # fmt: skip


async def _seek(connection: Any, form: Form) -> Plan:
    group, topic = needed(form, "group"), needed(form, "topic")
    to = form.get("to", "")
    at: dict[str, Any]
    if to == "now":
        at, option = {"now": True}, ["--now"]
    elif to == "after":
        after = number("after", needed(form, "after"))
        at, option = {"after": after}, ["--after", str(after)]
    elif to == "since":
        since = moment("since", needed(form, "since"))
        at, option = {"since": since}, ["--since", needed(form, "since")]
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
        f" {found.skipped:,} skipped.", shlex.join(words), at_once(do), fields, topic,
    )  # fmt: skip


def _on_group(change: Callable[..., Awaitable[None]], what: str, done: str) -> Planner:
    """Return the plan of a change of a whole group; its texts have {group}."""

    async def plan(_: Any, form: Form) -> Plan:
        group = needed(form, "group")

        async def do(connection: Any, _: str | None) -> str:
            await change(AsyncAdmin(), connection, group)
            return done.format(group=group)

        command = shlex.join(["durable-notify", "group", change.__name__, group])
        return Plan(what.format(group=group), command, at_once(do), {"group": group}, None)

    return plan


async def _publish(_: Any, form: Form) -> Plan:
    """Publish an edited dead letter again, as a new message that names its origin."""
    topic, origin = needed(form, "topic"), number("origin", form.get("origin"))
    text = needed(form, "payload")
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
    fields = ("topic", "origin", "payload", "key", "headers")
    return Plan(
        f"Publish this to {topic} as a new message, for all of its groups.",
        shlex.join(words), at_once(do),
        {name: form[name] for name in fields if form.get(name)}, topic,
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
    "retry-now": Action(
        "retry",
        "Retry now",
        _on_retries(
            AsyncAdmin.retry_now,
            "Redeliver {messages} to {group} now, instead of later.",
            "{messages} redelivered to {group} now.",
            "now",
        ),
    ),
    "drop-retries": Action(
        "retry",
        "Make dead letters",
        _on_retries(
            AsyncAdmin.drop_retries,
            "Make dead letters of {messages} of {group}, without further attempts. Later messages"
            " of their keys are delivered then.",
            "{messages} of {group} became dead letters.",
            "drop",
        ),
        danger=True,
    ),
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
    "configure": Action("configure", "Change options", configure),
    "publish": Action("publish", "Publish", _publish),
}
