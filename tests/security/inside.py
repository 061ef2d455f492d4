"""The command line in this process: what needs hundreds of calls cannot start as many processes."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

from durable_notify import cli
from durable_notify.cli import errors as problems
from tests.support.logs import own_log


def invoke(*arguments: str, dsn: str) -> tuple[int, str, str]:
    """Do what a process does, up to a command's own output: exit status, output, errors."""
    out, err = io.StringIO(), io.StringIO()
    with (
        own_log(),  # which writes to `err`
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patch.setattr(problems, "mute_stdout", lambda: None)
        patch.setenv("DURABLE_NOTIFY_DSN", dsn)
        status = problems.status_of(
            lambda: cli.cli.main(list(arguments), prog_name="durable-notify", standalone_mode=False)
        )
    return status, out.getvalue(), err.getvalue()
