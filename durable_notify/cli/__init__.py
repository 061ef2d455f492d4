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


for _command in (
    server.demo,
    torture.torture,
    server.migrate,
    publish.publish,
    consume.consume,
    run.run,
    read.read,
    group.group,
    replay.replay,
    replay.replay_job,
    replay.seek,
    status.status,
    web.web,
    doctor.doctor,
    dead_letters.dead_letters,
    retries.retries,
    audit.audit,
    asyncapi.asyncapi,
    access.grant,
    access.revoke,
    access.grants,
    server.embedded,
    wakeups.wakeups,
    bridge.bridge,
    relay.relay,
    webhook.webhook,
    ingest.ingest,
    watch.watch,
    reanchor.reanchor,
    retention.retention,
    retention.lost_messages,
    retention.topics,
    maintain.maintain,
    erase.erase,
    operator_events.operator_events,
    schedule.schedule,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit with its status."""
    sys.exit(
        problems.status_of(lambda: cli.main(prog_name="durable-notify", standalone_mode=False))
    )
