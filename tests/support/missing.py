"""Skip what cannot run here, in words that the run's last line can sum up."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

_INSTALLS = re.compile(r": (apt-get install|pip install|npm install) (.+)$")


def skip_missing(what: str, install: str, *, fail_in_ci: bool = False) -> NoReturn:
    """Skip a test that needs a program or a package; `install` is the command that gets it."""
    reason = f"no {what}: {install}"
    if fail_in_ci and os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_program(name: str, package: str = "", *, fail_in_ci: bool = False) -> str:
    """Return the path of a program, or skip the test."""
    # Debian keeps servers where only root looks.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    install = f"apt-get install {package or name}"
    return found or skip_missing(name, install, fail_in_ci=fail_in_ci)


def need_package(module: str, package: str = "") -> None:
    """Skip the test if a package of Python's is missing."""
    if importlib.util.find_spec(module) is None:
        skip_missing(module, f"pip install {package or module}")


def slow_but(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return parameters of which all are slow but a few: each shows the same of another case."""
    return [
        value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]


def sum_up(reasons: Iterable[str]) -> str:
    """Say in one line how many tests were skipped, why, and what to install to run them."""
    counted = Counter(reasons)
    if not counted:
        return "No test was skipped."
    why = [f"{number} {_INSTALLS.sub('', reason)}" for reason, number in counted.most_common()]
    packages: dict[str, list[str]] = {}
    for command, package in (m.groups() for m in map(_INSTALLS.search, sorted(counted)) if m):
        if package not in packages.setdefault(command, []):
            packages[command].append(package)
    remedies = [f"{command} {' '.join(names)}" for command, names in packages.items()]
    remedy = f" To run more: {'; '.join(remedies)}." if remedies else ""
    return f"Skipped: {counted.total()} ({'; '.join(why)}).{remedy}"


_INSTALL = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]


def install(folder: Path, *packages: str) -> str | None:
    """Install packages for node into a folder; None: done, else the reason why not."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "there is no node, or no npm"
    try:
        done = subprocess.run(
            [npm, *_INSTALL, *packages],
            cwd=folder, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "npm install takes too long"
    return f"npm install failed: {done.stderr.strip()[-200:]}" if done.returncode else None


def node_with_pg(folder: Path) -> None:
    """Have programs in a folder find pg, or skip the test."""
    if (reason := install(folder, "pg")) is not None:
        skip_missing(f"pg for node ({reason})", "apt-get install nodejs npm")
