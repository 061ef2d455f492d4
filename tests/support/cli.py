"""Run ``durable-notify`` as its users do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import IO, Any

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
    """Run a command to its end, in this process: to start Python takes longer than most commands.

    `run_process` is for what only a process shows: signals, closed pipes, the log's own set-up.
    """
    status, out, err = invoke(*arguments, dsn=dsn, given=given, **env)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(arguments, status, out, err)


def run_process(
    *arguments: str, dsn: str = "", given: str | bytes = b"", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process of its own."""
    if dsn:
        env["DURABLE_NOTIFY_DSN"] = dsn
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=_bytes(given),
        capture_output=True,
        env=cli_environment(**env),
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def _bytes(given: str | bytes) -> bytes:
    return given.encode() if isinstance(given, str) else given


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


def invoke(
    *arguments: str, dsn: str = "", given: str | bytes = b"", **env: str
) -> tuple[int, str, str]:
    """Do what a process does, in this one: exit status, output, errors."""
    with (
        ExitStack() as stack,
        own_log(),  # which writes to `err`
        pytest.MonkeyPatch.context() as patch,
    ):
        # Files, and not StringIO: commands use the descriptors.
        files = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3)]
        for name, file in zip(("stdin", "stdout", "stderr"), files, strict=True):
            patch.setattr(sys, name, file)
        files[0].buffer.write(_bytes(given))
        files[0].seek(0)
        patch.setattr(problems, "mute_stdout", lambda: None)
        environment = cli_environment(**env) | ({"DURABLE_NOTIFY_DSN": dsn} if dsn else {})
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        status = _beside_a_loop(lambda: problems.status_of(lambda: _main(arguments)))
        return status, *(_contents(file) for file in files[1:])


def _contents(file: IO[str]) -> str:
    file.seek(0)
    return file.buffer.read().decode()


def _main(arguments: tuple[str, ...]) -> object:
    return cli.cli.main(list(arguments), prog_name="durable-notify", standalone_mode=False)


def _beside_a_loop(call: Callable[[], int]) -> int:
    """Call it; in a thread if this one runs an event loop, since some commands start their own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()
