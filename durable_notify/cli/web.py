"""``durable-notify web``: serve the dashboard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import common, pass_database
from .errors import Failure

if TYPE_CHECKING:
    from .database import Database

__all__ = ["web"]

PASSWORD = "DURABLE_NOTIFY_WEB_PASSWORD"  # noqa: S105 - the name of a variable


@click.command()
@common
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="The address to serve on; if others reach it, a password or a proxy is "
              "needed.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8079, show_default=True)
@click.option("--write", is_flag=True, help="Let users redrive, replay, pause and so on. Without a "
              "password or a proxy, the printed address opens this once.")  # fmt: skip
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
              help=f"Ask for the password in this file (or in {PASSWORD}).")  # fmt: skip
@click.option("--user-header", metavar="NAME", help="Trust a proxy that names the user in this "
              "header, such as X-Forwarded-User.")  # fmt: skip
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME",
              help="Answer under this name too.")  # fmt: skip
@click.option("--root-path", default="", metavar="PATH", help="Where a proxy serves it: /queue.")
@click.option("--topics", "topics", multiple=True, metavar="PATTERN",
              help="Show only these topics.")  # fmt: skip
@click.option("--no-payloads", is_flag=True, help="Show no payloads, headers and error texts.")
@click.option("--mask", "masks", multiple=True, metavar="PATH", help="A field of payloads and "
              "headers that is not shown: password, card.number.")  # fmt: skip
@pass_database
def web(
    database: Database,
    /,
    *,
    host: str,
    port: int,
    password_file: str | None,
    user_header: str | None,
    hosts: tuple[str, ...],
    root_path: str,
    masks: tuple[str, ...],
    **access: Any,
) -> None:
    """Serve the dashboard: what is wrong, topics, groups, messages and dead letters, in a browser.

    It only looks, unless --write is given, and answers only this machine, unless a password or a
    proxy tells users apart. What the role of --dsn may not do, no user can do.
    """
    try:
        import uvicorn

        from ..web.app import dashboard
        from ..web.standalone import Door, is_loopback
    except ModuleNotFoundError as error:
        raise Failure(
            f"the dashboard needs {error.name}", 'Run: pip install "durable-notify[web]"'
        ) from error
    door = Door(
        write=access["write"], password=_password(password_file), header=user_header,
        topics=access["topics"] or (">",), payloads=not access["no_payloads"],
    )  # fmt: skip
    if not is_loopback(host) and not door.is_closed:
        raise click.UsageError(
            f"--host {host} lets others in: give --password-file, {PASSWORD} or --user-header"
        )
    names = {"localhost", "127.0.0.1", "::1", host, *hosts}
    app = dashboard(
        database.dsn, authorize=door.authorize, masks=masks, hosts=names, routes=door.routes
    )
    config = uvicorn.Config(
        app, host=host, port=port, root_path=root_path, log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=3,
    )  # fmt: skip
    _serve(uvicorn.Server(config), door, host)


def _password(file: str | None) -> str | None:
    if file is not None:
        return Path(file).read_text(encoding="utf-8").strip()
    return os.environ.get(PASSWORD)


def _serve(server: Any, door: Any, host: str) -> None:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, server.config.port), family=family)
    except OSError as error:
        raise Failure(
            f"cannot serve on {host}:{server.config.port}: {error.strerror or error}",
            "Give another --port or --host.",
        ) from error
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}{server.config.root_path}"
    if door.write and not door.is_closed:
        click.echo(
            f"Open this once, to read and write: {address}/login?token={door.token}", err=True
        )
    click.echo(f"dashboard: {address}/", err=True)
    server.run(sockets=[listening])
