"""A pretend release: a copy of the checkout, to freeze, change and generate revisions in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg

from tests.support.postgres import CHECKOUT
from tests.support.retention import lay_out_partitions
from tests.support.sessions import Session
from tests.support.wait import eventually
from tools.revision import FUNCTIONS, inlined

#: Each rewrites a function that holds settings; closed partitions come by themselves.
SETTINGS = (
    "SELECT durable_notify.set_notify_policy('loud', 'always')",
    "SELECT durable_notify.set_mirror('mirrored', 'old_channel')",
    "SELECT durable_notify.set_retention('compacted', compact => true)",
)


def settings(dsn: str) -> dict[str, str]:
    """The functions whose bodies hold users' settings."""
    with psycopg.connect(dsn) as conn:
        found = {name: text for _, name, text, _ in conn.execute(FUNCTIONS)}
    return {name: found[name] for name in inlined()}


def set_all(dsn: str) -> dict[str, str]:
    """Set everything that such a function holds."""
    before = settings(dsn)
    with closing(Session(dsn)) as session:
        lay_out_partitions(session, width=10)
        for statement in SETTINGS:
            session.run(statement)
        for _ in range(25):
            session.publish()

        def all_set() -> bool:
            session.run("CALL durable_notify.maintain()")
            after = settings(dsn)
            return all(after[name] != text for name, text in before.items())

        eventually(all_set)
    return settings(dsn)


PARTS = (
    "durable_notify", "migrations", "tools", "tests/support", "tests/__init__.py",
    "docs", "README.md",
)  # fmt: skip


class Checkout:
    """A copy of what a release is made of, and a server to generate its revisions on."""

    def __init__(self, folder: Path, server: str, of: Path = CHECKOUT) -> None:
        self.folder = folder
        self.server = server
        self.migrations = folder / "migrations"
        for part in PARTS:
            source, target = of / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python on this copy."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "DATABASE_URL": self.server}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder, env=environment, text=True, capture_output=True, check=False,
        )  # fmt: skip

    def revision(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Generate a revision, or freeze it."""
        return self.python("-m", "tools.revision", *arguments)

    def edit(self, file: str, old: str, new: str) -> None:
        """Change the first place of a file of the migrations that reads so."""
        path = self.migrations / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def append(self, file: str, text: str) -> None:
        with (self.migrations / file).open("a") as opened:
            opened.write(text)

    def newest_name(self) -> str:
        """The name of the newest revision, without its ending."""
        return max(path.stem for path in (self.migrations / "versions").glob("*.py"))

    def newest(self) -> str:
        return self.newest_name().partition("_")[0]

    def sums(self) -> str:
        return (self.migrations / "revisions" / "SHA256SUMS").read_text()


def tagged_unfrozen(folder: Path) -> list[str] | None:
    """The revisions of the last release that are not frozen; None: there is no release."""
    describe = ("git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    found = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=False)
    if found.returncode:
        return None
    listing = ("git", "ls-tree", "--name-only", found.stdout.strip(), "migrations/versions/")
    listed = subprocess.run(listing, cwd=folder, capture_output=True, text=True, check=True)
    names = [Path(line).stem for line in listed.stdout.split()]
    sums = (folder / "migrations" / "revisions" / "SHA256SUMS").read_text()
    return [name for name in names if f"  {name}.sql" not in sums]
