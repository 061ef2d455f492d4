"""node and its package pg, where they are to be had."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.missing import skip_missing

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
