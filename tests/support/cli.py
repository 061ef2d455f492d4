"""Run ``durable-notify`` as its users do: in a process of its own."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import pytest

from durable_notify import cli
from durable_notify.cli import errors as problems

COMMAND = [sys.executable, "-m", "durable_notify.cli"]
PATIENCE = 60


def cli_environment(**more: str) -> dict[str, str]:
    ours = {"DURABLE_NOTIFY_DSN", "DATABASE_URL", "DURABLE_NOTIFY_HOME", "FORCE_COLOR"}
    return {k: v for k, v in os.environ.items() if k not in ours} | {"NO_COLOR": "1"} | more


def run(
    *arguments: str, dsn: str = "", given: str | bytes = b"", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    if dsn:
        env["DURABLE_NOTIFY_DSN"] = dsn
    data = given.encode() if isinstance(given, str) else given
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        capture_output=True,
        env=cli_environment(**env),
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def good(*arguments: str, dsn: str = "", given: str | bytes = b"", **env: str) -> str:
    """Run a command that has to succeed; returns its standard output."""
    done = run(*arguments, dsn=dsn, given=given, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(*arguments: str, dsn: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run a command beside the test."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn),
        bufsize=0,  # or a line read would take those after it along, which communicate() then lacks
        **options,
    )


def end(process: subprocess.Popen[bytes]) -> tuple[list[dict[str, Any]], str]:
    """Wait for the end of a command; returns what it had not yet printed, and its errors."""
    out, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err, err.decode()
    return objects(out.decode()), err.decode()


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.split("\n") if line]


def payloads(output: str) -> list[Any]:
    return [message["payload"] for message in objects(output)]


def drain(dsn: str, topic: str = "t", group: str = "g", *more: str) -> list[Any]:
    return payloads(good("consume", topic, "--group", group, "--until-empty", *more, dsn=dsn))


def fails(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """It says, in one line and a remedy, what is wrong."""
    assert done.returncode == status, done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def on_a_terminal(typed: bytes, *arguments: str, dsn: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=cli_environment(DURABLE_NOTIFY_DSN=dsn, TERM="xterm"),
    )
    os.close(theirs)
    os.write(ours, typed)
    output = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        output += chunk
    os.close(ours)
    return process.wait(PATIENCE), output.decode()


@contextmanager
def own_log() -> Iterator[None]:
    """Let a command set the log up as in a process of its own, and take it back."""
    log = logging.getLogger("durable_notify")
    handlers, propagates, level = log.handlers[:], log.propagate, log.level
    log.handlers.clear()
    try:
        yield
    finally:
        log.handlers[:], log.propagate = handlers, propagates
        log.setLevel(level)


def invoke(*arguments: str, dsn: str) -> tuple[int, str, str]:
    """Do what a process does, in this one: exit status, output, errors.

    What needs hundreds of calls cannot start as many processes.
    """
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


def run_here(*arguments: str, dsn: str) -> subprocess.CompletedProcess[str]:
    """Do what `run` does, without a process of its own."""
    status, out, err = invoke(*arguments, dsn=dsn)
    return subprocess.CompletedProcess(arguments, status, out, err)
