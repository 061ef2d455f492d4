"""``durable-notify run``: run the consumers of a program."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._async.consumer.consumer import AsyncConsumer
from .._async.consumer.several import run_async
from .._sync.consumer.consumer import Consumer
from .._sync.consumer.several import run as run_in_threads
from .common import common
from .errors import Failure
from .handler import Attribute
from .service import Observed, health_options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["run"]

#: How long a program may take to end before its replacement starts, in seconds.
TO_END = 30


@click.command()
@common
@click.argument("consumers", metavar="MODULE:CONSUMERS", required=False)
@click.option("--reload", is_flag=True, help="For development: start the program again when a "
              "Python file in this folder changes.")  # fmt: skip
@health_options
def run(*, consumers: str | None, reload: bool, observed: Observed) -> None:
    """Run consumers that a Python module defines, with the handlers that they have by on().

    MODULE:CONSUMERS is a Consumer or an AsyncConsumer, a list of them, or a function that returns
    one or the other. They use the databases that the program gave them, and share one process and
    one listening connection for each database.

    On SIGTERM or Ctrl-C they claim no more messages, and running handlers finish. A second signal
    ends the wait. If one of them fails, the others stop, and the exit status is 1.
    """
    host = click.get_current_context().find_root().obj.host
    if reload:
        _reload(host.command if host else (sys.executable, "-m", "durable_notify.cli"))
        return
    if consumers is None:
        if host is None:
            raise click.UsageError("Missing argument 'MODULE:CONSUMERS'.")
        consumers = host.consumers
    found = Attribute().convert(consumers, None, click.get_current_context())
    chosen = _listed(consumers, found() if _is_function(found) else found)
    observed.attach(chosen)
    with observed.answering(*chosen, dsn=chosen[0]._dsn):  # noqa: SLF001 - ours
        if isinstance(chosen[0], AsyncConsumer):
            asyncio.run(run_async(*chosen))
        else:
            run_in_threads(*chosen)


def _is_function(found: Any) -> bool:
    return callable(found) and not isinstance(found, (Consumer, AsyncConsumer))


def _listed(name: str, found: Any) -> Sequence[Any]:
    chosen = list(found) if isinstance(found, (list, tuple)) else [found]
    kinds = {type(each) for each in chosen}
    if not chosen or not all(issubclass(kind, (Consumer, AsyncConsumer)) for kind in kinds):
        raise click.UsageError(
            f"{name} is not a consumer, a list of consumers, or a function that returns them"
        )
    if len({issubclass(kind, AsyncConsumer) for kind in kinds}) > 1:
        raise click.UsageError(
            f"{name} has both Consumers and AsyncConsumers: run each kind in a process of its own"
        )
    return chosen


def _reload(program: Sequence[str]) -> None:
    """Run this command without --reload in a process, and replace that after each change."""
    try:
        import watchfiles
    except ModuleNotFoundError as error:
        raise Failure(
            "--reload needs watchfiles", 'Run: pip install "durable-notify[reload]"'
        ) from error
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    command = shlex.join([*program, *arguments])
    watchfiles.run_process(
        Path.cwd(),
        target=command,
        target_type="command",
        watch_filter=watchfiles.PythonFilter(),
        sigint_timeout=TO_END,
    )
