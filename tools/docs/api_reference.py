"""The Python reference: a page a subject, with every public name, from the docstrings.

mkdocstrings reads the source, and imports nothing. The Markdown of these pages is written here from
the same source, by the library that mkdocstrings uses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tools.docs.stage import ROOT

if TYPE_CHECKING:
    import griffe

TOP = "durable_notify"
INTRODUCTION = """\
Every public name, from its docstring. Names of `durable_notify` are imported from there
(`import durable_notify as dn`), all others from the module that stands above them.
"""
PAGES: dict[str, tuple[str, dict[str, tuple[str, ...]]]] = {
    "publishing": (
        "Publishing",
        {
            TOP: (
                "Publisher", "AsyncPublisher", "NewMessage", "Topic", "Schedule", "Scheduler",
                "AsyncScheduler",
            ),
            f"{TOP}.payloads": ("NewMessageOptions", "PublishOptions"),
            f"{TOP}.topics": ("TopicName",),
            f"{TOP}.durations": ("Seconds",),
            f"{TOP}.codecs": ("Codec", "JsonCodec", "Bytes", "JsonText"),
            f"{TOP}.asyncapi": (),
        },
    ),
    "consuming": (
        "Consuming",
        {
            TOP: (
                "Consumer", "AsyncConsumer", "Message", "AsyncMessage", "Group", "RetryPolicy",
                "Ack", "Retry", "Reject", "run", "run_async",
            ),
            f"{TOP}.options": ("ConsumerOptions", "ConsumerSettings", "ErrorRules"),
            f"{TOP}.groups": ("GroupSettings", "OnExpiry", "OrderBy", "Start"),
        },
    ),
    "reading": ("Reading without a group", {TOP: ("Reader", "AsyncReader")}),
    "middleware": (
        "Middleware",
        {
            TOP: ("Middleware",),
            f"{TOP}.middleware": ("Handling", "Publishing", "Around"),
        },
    ),
    "administration": (
        "Administration",
        {
            TOP: ("Admin", "AsyncAdmin", "Maintenance", "AsyncMaintenance"),
            f"{TOP}.schedules": ("ScheduleInfo",),
            f"{TOP}.archive": (),
            f"{TOP}.operator_events": (),
            f"{TOP}.diagnostics.doctor": (),
            f"{TOP}.diagnostics.probes": (),
        },
    ),
    "models": ("What methods return", {f"{TOP}.models": ()}),
    "events": ("Events", {f"{TOP}.events": ()}),
    "errors": ("Errors", {f"{TOP}.errors": ()}),
    "schema": (
        "Schema and servers",
        {
            TOP: ("__version__",),
            f"{TOP}.schema": (),
            f"{TOP}.embedded": (),
            f"{TOP}.integrations.alembic": (),
        },
    ),
    "testing": ("Testing", {f"{TOP}.testing": ()}),
    "observing": (
        "Logs, metrics and traces",
        {
            f"{TOP}.integrations.logs": (),
            f"{TOP}.integrations.structlog": (),
            f"{TOP}.integrations.prometheus": (),
            f"{TOP}.integrations.otel": (),
        },
    ),
    "frameworks": (
        "Frameworks",
        {
            f"{TOP}.integrations.fastapi": (),
            f"{TOP}.integrations.django": (),
            f"{TOP}.integrations.django.tasks": (),
            f"{TOP}.integrations.django.test": (),
            f"{TOP}.integrations.sqlalchemy": (),
        },
    ),
    "web": (
        "Dashboard and streams",
        {
            f"{TOP}.web": (),
            f"{TOP}.web.access": ("Authorize",),
            f"{TOP}.web.streaming.router": ("stream_router",),
            f"{TOP}.web.streaming.access": ("AuthorizeStream",),
        },
    ),
    "bridges": ("Bridges", {f"{TOP}.bridge": ()}),
    "brokers": (
        "Relays and ingest",
        {
            TOP: ("Webhooks", "AsyncWebhooks"),
            f"{TOP}.endpoints": ("WebhookEndpoint", "WebhookSettings"),
            f"{TOP}.brokers.relay": (),
            f"{TOP}.brokers.ingest": ("AsyncIngest", "IncomingMessage", "Source"),
            f"{TOP}.brokers.broker": (
                "Broker", "BrokerMessage", "Report", "Outcome", "Sent", "Rejected", "RetryLater",
                "Unconfirmed", "Gone",
            ),
            f"{TOP}.brokers.cloudevents": (),
            f"{TOP}.brokers.routes": ("Routes",),
            f"{TOP}.brokers.webhooks": ("RETRY", "WebhookOptions", "send_test"),
        },
    ),
}  # fmt: skip
"""By page: its title, and by module the names it documents; none: all that the module exports."""


def exported(module: str) -> tuple[str, ...]:
    """Return the names that a module exports, from its source."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    raise ValueError(f"{module} has no __all__")


def documented(page: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the modules of a page, each with the names that are documented there."""
    for module, names in PAGES[page][1].items():
        yield module, names or exported(module)


def pages() -> dict[str, str]:
    """Return the pages as mkdocstrings takes them."""
    result = {"index.md": _index()}
    for page, (title, _) in PAGES.items():
        lines = [f"# {title}\n"]
        for module, names in documented(page):
            if module == TOP:
                lines.append(f"## {TOP}\n")
            else:
                lines.append(f"::: {module}\n    options:\n      members: false\n")
            lines += [
                f"::: {module}.{name}\n    options:\n      heading_level: 3\n" for name in names
            ]
        result[f"{page}.md"] = "\n".join(lines)
    return result


def _index() -> str:
    lines = [
        "# Python reference\n",
        INTRODUCTION,
    ]
    for page, (title, _) in PAGES.items():
        names = [f"{module}.{name}" for module, own in documented(page) for name in own]
        links = ", ".join(f"[`{name.rpartition('.')[2]}`]({page}.md#{name})" for name in names)
        lines.append(f"- [{title}]({page}.md): {links}")
    return "\n".join(lines) + "\n"


def markdown() -> dict[str, str]:
    """Return the pages with their docstrings written out, for readers of Markdown."""
    import griffe  # noqa: PLC0415 - tests of what is documented do without it

    package = griffe.load(TOP, search_paths=[str(ROOT)], resolve_aliases=True)
    result = {}
    for page, (title, _) in PAGES.items():
        lines = [f"# {title}\n"]
        for module, names in documented(page):
            path = module.removeprefix(TOP).lstrip(".")
            there = package[path] if path else package
            lines.append(f"## {module}\n")
            if path and there.docstring:
                lines.append(there.docstring.value + "\n")
            for name in names:
                lines += _written(there[name], name, 3)
        result[f"{page}.md"] = "\n".join(lines)
    return result


def _written(thing: griffe.Object | griffe.Alias, name: str, level: int) -> Iterator[str]:
    """Write a name, what is said of it, and its public members."""
    yield f"{'#' * level} {name}\n"
    if thing.is_function or thing.is_class:
        yield f"```python\n{thing.signature(name=name)}\n```\n"
    elif thing.is_attribute and thing.annotation:
        yield f"`{name}: {thing.annotation}`\n"
    if thing.docstring:
        yield thing.docstring.value + "\n"
    if thing.is_class:
        for member, inner in thing.all_members.items():
            if not member.startswith("_") and (inner.is_function or inner.docstring):
                yield from _written(inner, f"{name}.{member}", level + 1)
