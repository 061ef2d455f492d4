"""The command line: ``durable-notify``.

Results go to standard output, everything else to standard error.
Exit status: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import sys

import click

from .._version import __version__
from . import (
    access,
    asyncapi,
    audit,
    bridge,
    consume,
    dead_letters,
    doctor,
    erase,
    group,
    ingest,
    maintain,
    operator_events,
    publish,
    read,
    reanchor,
    relay,
    replay,
    retention,
    retries,
    run,
    schedule,
    server,
    status,
    torture,
    wakeups,
    watch,
    web,
    webhook,
    webhook_endpoints,  # noqa: F401 - more commands of webhook
)
from . import errors as problems
from .common import common

__all__ = ["cli", "main"]


@click.group(
    cls=problems.Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common
@click.version_option(__version__, prog_name="durable-notify", message="%(prog)s %(version)s")
def cli() -> None:
    """LISTEN/NOTIFY that loses nothing: publish, consume and replay messages on PostgreSQL.

    The database is --dsn, else DURABLE_NOTIFY_DSN, else DATABASE_URL, else an embedded PostgreSQL
    in your own data folder (or DURABLE_NOTIFY_HOME), started when needed.

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """


_COMMANDS: dict[str, tuple[click.Command, ...]] = {
    "Begin": (server.demo, server.migrate, server.embedded),
    "Publish and consume": (
        publish.publish, consume.consume, run.run, read.read, schedule.schedule, asyncapi.asyncapi,
    ),
    "Look": (status.status, retention.topics, web.web, doctor.doctor, audit.audit),
    "Failures and replays": (
        dead_letters.dead_letters, retries.retries, replay.replay, replay.replay_job, replay.seek,
    ),
    "Operate": (
        group.group, retention.retention, retention.lost_messages, maintain.maintain, erase.erase,
        wakeups.wakeups, operator_events.operator_events, reanchor.reanchor, torture.torture,
        access.grant, access.revoke, access.grants,
    ),
    "Reach others": (relay.relay, ingest.ingest, webhook.webhook, bridge.bridge, watch.watch),
}  # fmt: skip
for _command in (command for commands in _COMMANDS.values() for command in commands):
    cli.add_command(_command)
cli.headings = {
    heading: [str(command.name) for command in commands] for heading, commands in _COMMANDS.items()
}


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(
        problems.status_of(lambda: cli.main(prog_name="durable-notify", standalone_mode=False))
    )
