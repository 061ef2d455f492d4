"""Real events for the demo: commits of a git repository, or lines of a file."""

from __future__ import annotations

import argparse
import inspect
import itertools
import platform
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InvalidArgument

__all__ = ["FEWEST", "Events", "find"]

#: The fewest events with which every phase has some.
FEWEST = 12

_COMMIT = "\x1e%H\x1f%an\x1f%aI\x1f%s"


class Events(NamedTuple):
    """Events, and where they come from."""

    origin: str
    payloads: list[dict[str, Any]]


def find(repository: Path | None, file: Path | None, limit: int) -> Events:
    """Return the events of the named source, or of a default one.

    Raises:
        InvalidArgument: the source has no events, or too few.
    """
    if file is not None:
        return _enough(_lines(file, limit, f"the lines of {file}"))
    if repository is not None:
        return _enough(_commits(repository, limit))
    try:
        return _enough(_commits(Path.cwd(), limit))
    except InvalidArgument:
        source = Path(inspect.getfile(argparse))
        version = platform.python_version()
        origin = f"the lines of Python {version}'s own {source.name} (no git repository is here)"
        return _enough(_lines(source, limit, origin))


def _enough(events: Events) -> Events:
    if len(events.payloads) < FEWEST:
        raise InvalidArgument(
            f"{events.origin}: {len(events.payloads)} events, the demo needs {FEWEST}. Name "
            "another with --repository or --file"
        )
    return events


def _lines(file: Path, limit: int, origin: str) -> Events:
    try:
        # NUL is the one character that JSON in PostgreSQL cannot hold.
        with file.open(encoding="utf-8", errors="replace") as lines:
            payloads = [
                {"line": number, "text": line.rstrip("\n").replace("\0", "\ufffd")}
                for number, line in enumerate(itertools.islice(lines, limit), 1)
            ]
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from None
    return Events(origin, payloads)


def _commits(repository: Path, limit: int) -> Events:
    """Return the newest commits and the file changes in them, oldest first."""
    git = shutil.which("git")
    if git is None:
        raise InvalidArgument("git is not installed")
    command = [git, "-C", str(repository), "log", f"-{limit}", "--name-status", "-z"]
    done = subprocess.run(  # noqa: S603 - git, with a folder for an argument
        [*command, f"--format={_COMMIT}"], capture_output=True, check=False, timeout=60
    )
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="replace").split())
        raise InvalidArgument(f"git cannot read {repository}: {words}")
    newest_last: deque[dict[str, Any]] = deque()
    commits = 0
    for record in done.stdout.decode(errors="replace").split("\x1e")[1:]:
        if len(newest_last) >= limit:
            break
        commits += 1
        newest_last.extendleft(reversed(_events_of(record)))
    payloads = list(newest_last)[-limit:]
    changes = sum("path" in payload for payload in payloads)
    where = f"the git repository {repository.resolve()}"
    return Events(f"{commits} commits and {changes} file changes in {where}", payloads)


def _events_of(record: str) -> list[dict[str, Any]]:
    """Return a commit and its changes. Git writes: header NUL NEWLINE status NUL path NUL ..."""
    header, *fields = record.split("\0")
    sha, author, at, subject = header.split("\x1f", 3)
    events: list[dict[str, Any]] = [{"commit": sha, "author": author, "at": at, "subject": subject}]
    rest = iter(field.lstrip("\n") for field in fields)
    for status in rest:
        if status:
            path = next(rest, "")
            if status[0] in "RC":  # renamed or copied: from, to
                path = next(rest, path)
            events.append({"commit": sha, "change": status[0], "path": path})
    return events
