"""Health and metrics of a command that runs as a service."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..diagnostics.probes import Probes
from ..events import subscribers
from .errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry

    from .._async.consumer.consumer import AsyncConsumer
    from .._sync.consumer.consumer import Consumer
    from ..diagnostics.probes import HealthSource
    from ..events import OnEvent
    from ..middleware import Middleware

__all__ = ["Observed", "health_options"]

F = TypeVar("F", bound="Callable[..., Any]")


def health_options(function: F) -> F:
    """Add --health-port and --health-host; the command gets ``observed``."""

    @functools.wraps(function)
    def command(*args: Any, health_port: int | None, health_host: str, **kwargs: Any) -> Any:
        return function(*args, observed=Observed(health_port, health_host), **kwargs)

    host = click.option(
        "--health-host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
        help="The address to serve them on; 0.0.0.0 in a container.",
    )  # fmt: skip
    port = click.option(
        "--health-port", type=click.IntRange(0, 65535), metavar="PORT",
        help="Serve /live, /ready and /metrics on this port, over HTTP.",
    )  # fmt: skip
    return port(host(command))  # type: ignore[return-value]


class Observed:
    """Serves the health and metrics of a service, if a port was given."""

    def __init__(self, port: int | None, host: str) -> None:
        self._port, self._host = port, host
        self._registry: CollectorRegistry | None = None
        #: For its consumers and publishers.
        self.on_event: list[OnEvent] = []
        self.middleware: list[Middleware] = []
        if port is not None:
            self._count()

    def _count(self) -> None:
        try:
            from prometheus_client import (
                CollectorRegistry,
                GCCollector,
                PlatformCollector,
                ProcessCollector,
                disable_created_metrics,
            )

            from ..integrations.prometheus import Metrics
        except ModuleNotFoundError:
            return  # /metrics says what to install
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        metrics = Metrics(self._registry)
        self.on_event, self.middleware = [metrics], [metrics]

    def attach(self, consumers: Iterable[AsyncConsumer[Any] | Consumer[Any]]) -> None:
        """Measure consumers that a program has made, but for those that have metrics already."""
        for consumer in consumers:
            heard = subscribers(consumer.options.on_event)
            for metrics in self.middleware:
                if not any(isinstance(each, type(metrics)) for each in heard):
                    consumer._observe(metrics)  # noqa: SLF001 - ours

    @contextmanager
    def answering(self, *watched: HealthSource, dsn: str) -> Iterator[None]:
        """Serve the health of ``watched`` meanwhile."""
        if self._port is None:
            yield
            return
        page = None
        collector = None
        if self._registry is not None:
            from ..integrations import prometheus

            collector = prometheus.StatusCollector(dsn)
            self._registry.register(collector)
            page = functools.partial(prometheus.page, self._registry)
        try:
            probes = Probes(*watched, port=self._port, host=self._host, metrics=page)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise Failure(
                f"cannot serve health on {where}: {error.strerror or error}",
                "Give another --health-port or --health-host.",
            ) from error
        with probes:
            if self._port == 0:
                click.echo(f"health: http://{self._host}:{probes.port}/ready", err=True)
            yield
        if collector is not None:
            collector.close()
