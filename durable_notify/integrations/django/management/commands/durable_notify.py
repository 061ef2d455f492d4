"""``manage.py durable_notify``: the command line of durable_notify, on Django's database."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS

from durable_notify.cli import cli
from durable_notify.cli.database import Database, Host
from durable_notify.cli.errors import status_of
from durable_notify.integrations.django import dsn

__all__ = ["Command"]

EVERY_CONSUMER = "durable_notify.integrations.django.discovery:every_consumer"


class Command(BaseCommand):
    """Runs a command of ``durable-notify``, on a database of the settings."""

    help = (
        "Run a command of durable-notify on a database of the settings: status, doctor, "
        "dead-letters, and all others. `run` without arguments runs the consumers of all installed "
        "applications; with --reload it starts again when code changes."
    )
    requires_system_checks = ()  # the database need not be migrated

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the rest of the line unchanged."""
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="The database's alias.")
        parser.add_argument(
            "arguments",
            nargs=argparse.REMAINDER,
            metavar="COMMAND ...",
            help="The command of durable-notify, and its arguments; --help shows them all.",
        )

    def handle(self, *_: Any, database: str, arguments: list[str], **__: Any) -> None:
        """Run it, and exit with its status if it fails."""
        host = Host((sys.executable, sys.argv[0]), EVERY_CONSUMER)
        chosen = Database(dsn(database), f"DATABASES[{database!r}]", host=host)
        name = "manage.py durable_notify"
        output: Any = self.stdout
        with contextlib.redirect_stdout(output._out):  # noqa: SLF001 - Trap: the other adds line ends
            status = status_of(
                lambda: cli.main(arguments, prog_name=name, standalone_mode=False, obj=chosen)
            )
        if status:
            sys.exit(status)
