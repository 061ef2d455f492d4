"""Python modules and handlers, named on the command line."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._async.consumer.consumer import AsyncConsumer
from .._core.callables import is_async
from .._sync.consumer.consumer import Consumer
from .errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from .service import Observed

__all__ = ["Attribute", "Handler", "Module", "run_handler"]


class Module(click.ParamType["ModuleType"]):
    """A module, imported from the current folder or from Python's path."""

    name = "MODULE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> ModuleType:
        """Import the module."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            return importlib.import_module(value)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{value}.".startswith(f"{error.name}."):
                self.fail(
                    f"there is no module {value!r} in this folder or on Python's path", param, ctx
                )
            raise _broken(value, error) from error
        except Exception as error:
            raise _broken(value, error) from error


class Attribute(click.ParamType[Any]):
    """``module:name``."""

    name = "MODULE:NAME"
    example = "shop.orders:consumers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Import the module, and return what has the name in it."""
        if not isinstance(value, str):
            return value
        name, colon, attribute = value.partition(":")
        if not (name and colon and attribute):
            self.fail(f"{value!r} is not {self.name}, as in {self.example}", param, ctx)
        found: Any = Module().convert(name, param, ctx)
        for part in attribute.split("."):
            if not hasattr(found, part):
                self.fail(f"module {name!r} has no {attribute!r}", param, ctx)
            found = getattr(found, part)
        return found


class Handler(Attribute):
    """``module:function``."""

    name = "MODULE:FUNCTION"
    example = "shop.orders:handle"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Callable[[Any], Any]:
        """Return the function."""
        found = super().convert(value, param, ctx)
        if not callable(found):
            self.fail(f"{value!r} is not a function", param, ctx)
        return found  # type: ignore[no-any-return]


def _broken(name: str, error: Exception) -> Failure:
    return Failure(
        f"module {name} could not be imported: {type(error).__name__}: {error}",
        f"Try it: python -c 'import {name}'",
    )


def run_handler(
    dsn: str,
    handler: Callable[[Any], Any],
    concurrency: int,
    observed: Observed,
    options: dict[str, Any],
) -> None:
    """Consume with a handler until stopped: in an event loop if it is async, else in threads."""
    # As with publishers: a program that imports OpenTelemetry wants its spans.
    if "opentelemetry.trace" in sys.modules:
        from ..integrations.otel import Tracing

        options["middleware"] = [*options.get("middleware", ()), Tracing()]
    # A plain decorator around an async function counts as async too.
    if is_async(handler) or is_async(inspect.unwrap(handler)):

        async def run() -> None:
            consumer = AsyncConsumer(dsn, **options)
            with observed.answering(consumer, dsn=dsn):
                await consumer.run(handler, concurrency=concurrency)

        asyncio.run(run())
        return
    consumer = Consumer(dsn, **options)
    with observed.answering(consumer, dsn=dsn):
        consumer.run(handler, concurrency=concurrency)
