#!/usr/bin/env python3
"""The project's tasks. Needs nothing but Python 3.11 or later.

python3 tasks.py demo      watch messages survive faults that lose them with plain LISTEN/NOTIFY
python3 tasks.py test      run the tests that are not slow, on a real PostgreSQL; all with --all
                           (other arguments go to pytest)

python3 tasks.py setup     make .venv and install the project with its development packages
python3 tasks.py format    run ruff's formatter
python3 tasks.py lint      run ruff, mypy, import-linter, and check words and generated files
python3 tasks.py sync      generate durable_notify/_sync from durable_notify/_async
python3 tasks.py snapshot  write migrations/snapshot.txt
python3 tasks.py revision  write the revision that a change of the schema needs, or freeze it
python3 tasks.py docs      build the documentation's site and serve it; --build only builds it
python3 tasks.py lock      write requirements/*.lock, with the newest releases
python3 tasks.py audit     check these for known vulnerabilities, if a service is reachable
python3 tasks.py versions  run the tests on every supported PostgreSQL, or on those named
python3 tasks.py django    run Django's tests on every supported Django, or on those named
python3 tasks.py upgrade   run the last release's tests, with its package, on this schema
python3 tasks.py build     build the sdist and the wheel twice, and compare
python3 tasks.py release   make a release; with --check, say what a tag's commit lacks
python3 tasks.py rehearse  rehearse a release in a throwaway clone
python3 tasks.py bench     run the benchmarks (arguments go to benchmarks/run.py)
python3 tasks.py ci        run what CI runs
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
TOOLS = ROOT / ".cache" / "tools"  # tools that are rarely needed, apart from the pinned ones
LOCK = ROOT / "requirements" / "dev.lock"
SITE = ROOT / ".cache" / "docs-tools"  # what builds the documentation's site
SITE_LOCK = ROOT / "requirements" / "docs.lock"
POSTGRESQL = ("14", "15", "16", "17", "18")
WORKERS = "4"  # also on two cores: half of what tests do is to wait
MOST_LATE = 5  # tests that may be late in a run of CI
OF_THE_SERVER = (
    "tests/sql", "tests/schema", "tests/admin/test_reanchor.py", "tests/consumer/test_consumer.py",
    "tests/consumer/test_settling.py", "tests/consumer/test_transactions.py",
    "tests/maintenance/test_maintenance.py", "tests/publisher/test_publisher.py",
    "tests/security/test_matrix.py",
)  # fmt: skip
"""The tests that depend most on the version of PostgreSQL."""
OF_ITS_USERS = tuple(
    f"tests/{name}"
    for name in ("admin", "consumer", "faults", "maintenance", "publisher", "reader", "wakeups")
)
"""The tests of what a release promises on the schema of the next one."""


def tried(*command: str, cwd: Path | None = None, **environment: str) -> int:
    """Run a command of the virtual environment, in the project's root; return its status."""
    print("$", *command, flush=True)
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment
    command = (str(BIN / command[0]), *command[1:])
    return subprocess.run(command, cwd=cwd or ROOT, env=env, check=False).returncode


def run(*command: str, cwd: Path | None = None, **environment: str) -> None:
    """Run a command of the virtual environment, and exit if it fails."""
    if status := tried(*command, cwd=cwd, **environment):
        sys.exit(status)


def setup() -> None:
    """Make .venv if it is missing or not current."""
    stamp = VENV / "installed"
    pyproject = (ROOT / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(pyproject + LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (BIN / "python").exists():
        print("making .venv", flush=True)
        venv.create(VENV, with_pip=True)
    install = ("python", "-m", "pip", "install", "--quiet")
    run(*install, "--require-hashes", "--requirement", str(LOCK.relative_to(ROOT)))
    # Only the project itself: the lock has everything else, including build tools.
    run(*install, "--no-deps", "--no-build-isolation", "--editable", ".")
    stamp.write_text(wanted)


def tool(name: str) -> dict[str, str] | None:
    """Install a program that the lock does not have; return the PATH to find it on.

    None if no package index answers.
    """
    if not (TOOLS / "bin" / name).exists():
        venv.create(TOOLS, with_pip=True)
        pip = [str(TOOLS / "bin" / "python"), "-m", "pip", "install", "--quiet", name]
        if subprocess.run(pip, check=False).returncode:
            return None
    return {"PATH": os.pathsep.join([str(TOOLS / "bin"), str(BIN), os.environ["PATH"]])}


def demo(*arguments: str) -> None:
    run("durable-notify", "demo", *arguments)


def test(*arguments: str) -> None:
    wanted = [argument for argument in arguments if argument != "--all"]
    if not arguments:
        wanted = ["-m", "not slow"]
    if arguments in {(), ("--all",)}:
        wanted += ["-n", WORKERS]
    run("python", "-m", "pytest", *wanted)


def format_() -> None:
    run("ruff", "format")


def lint() -> None:
    run("ruff", "check")
    run("ruff", "format", "--check")
    run("mypy")
    run("lint-imports")
    run("python", "tools/words.py")
    run("python", "tools/unasync.py", "--check")
    run("python", "tools/lock.py", "--check")


def sync() -> None:
    run("python", "tools/unasync.py")


def snapshot() -> None:
    run("python", "-m", "tests.schema.renew_snapshot")


def revision(*arguments: str) -> None:
    run("python", "-m", "tools.revision", *arguments)


def docs(*arguments: str) -> None:
    """Build the site with packages of its own: nothing else needs them."""
    python, stamp = str(SITE / "bin" / "python"), SITE / "installed"
    if not stamp.exists() or stamp.read_bytes() != SITE_LOCK.read_bytes():
        venv.create(SITE, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(SITE_LOCK)]
        if subprocess.run(pip, check=False).returncode:
            sys.exit("docs: NOT DONE, its packages could not be installed")
        stamp.write_bytes(SITE_LOCK.read_bytes())
    wanted = () if "--build" in arguments else ("--serve",)
    command = [python, "-m", "tools.docs.build", *wanted]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(status)


def lock() -> None:
    if (found := tool("uv")) is None:
        sys.exit("uv could not be installed; it is needed to update requirements/*.lock")
    run("python", "tools/lock.py", **found)


def audit() -> None:
    if (found := tool("pip-audit")) is None:
        print("audit: NOT DONE, pip-audit could not be installed")
    else:
        run("python", "tools/audit.py", **found)


def versions(*wanted: str) -> None:
    for major in wanted or POSTGRESQL:
        # The model does not depend on the version.
        pytest = ("python", "-m", "pytest", "-q", "-n", WORKERS, "--ignore=tests/model")
        run(*pytest, DURABLE_NOTIFY_TEST_PG=major)


def django(*wanted: str) -> None:
    run("python", "-m", "tests.integrations.django_site.versions", *wanted)


def tested(*arguments: str, **environment: str) -> None:
    """Run tests. Run a few that failed again, alone, and name those that then pass.

    A test that fails only in CI was mostly late on a busy machine. That is a bug, but no reason to
    refuse a change. A test of something broken fails both times.
    """
    failed = ROOT / ".cache" / "pytest" / "v" / "cache" / "lastfailed"
    failed.unlink(missing_ok=True)
    pytest = ("python", "-m", "pytest", "-q", "-o", "cache_dir=.cache/pytest")
    status = tried(*pytest, "-n", WORKERS, *arguments, **environment)
    names = sorted(json.loads(failed.read_text())) if failed.exists() else []
    if status == 1 and 0 < len(names) <= MOST_LATE:
        status = tried(*pytest, "-n", "0", "--last-failed", *arguments, **environment)
        if status == 0:
            print("FLAKY, a bug to look for: passed only alone:", *names, sep="\n  ", flush=True)
    if status:
        sys.exit(status)


def last_release() -> str | None:
    """Return the newest release that this commit comes after: its tag."""
    describe = ("git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def migrations(checkout: Path) -> dict[Path, bytes]:
    """Return the files that make the schema."""
    folder = checkout / "migrations"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder): path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


def upgrade(*arguments: str) -> None:
    """Run the last release's tests and package on the schema of this checkout, if it differs.

    It leaves out tests of the schema, the documents and the rights, which may change.
    """
    tag = last_release()
    if tag is None:
        print("upgrade: NOT DONE, there is no release yet (no tag v* before this)", flush=True)
        return
    old = ROOT / ".cache" / "releases" / tag
    if not old.exists():
        new = old.with_suffix(".new")
        new.mkdir(parents=True, exist_ok=True)
        archiving, unpacking = ("git", "archive", tag), ("tar", "-x")
        archive = subprocess.run(archiving, cwd=ROOT, capture_output=True, check=True)
        subprocess.run(unpacking, cwd=new, input=archive.stdout, check=True)
        new.rename(old)
    if migrations(old) == migrations(ROOT):
        print(f"upgrade: nothing to test, the schema is that of {tag}", flush=True)
        return
    print(f"the tests of {tag} on this schema", flush=True)
    # tests/conftest.py also migrates its template with the package of the second one.
    environment = {"PYTHONPATH": str(old), "DURABLE_NOTIFY_TEST_SCHEMA": str(ROOT)}
    folders = arguments or (*OF_ITS_USERS, "-n", WORKERS)
    run("python", "-m", "pytest", "-q", "--rootdir", str(old), *folders, cwd=old, **environment)


def build(*arguments: str) -> None:
    run("python", "tools/build.py", *arguments)


def release(*arguments: str) -> None:
    run("python", "-m", "tools.release", *arguments)


def rehearse(*arguments: str) -> None:
    run("python", "tools/rehearse.py", *arguments)


def bench(*arguments: str) -> None:
    run("python", "benchmarks/run.py", *arguments)


def ci() -> None:
    lint()
    docs("--build")
    tested()  # on the newest PostgreSQL
    # On the oldest, the tests that depend most on the server; all would take too long.
    tested(*OF_THE_SERVER, DURABLE_NOTIFY_TEST_PG=POSTGRESQL[0])
    upgrade()  # prints NOT DONE if there is no release yet
    audit()  # prints NOT DONE if it could not run


TASKS = {
    "demo": demo, "test": test, "setup": lambda: None, "format": format_, "lint": lint,
    "sync": sync, "snapshot": snapshot, "revision": revision, "lock": lock, "audit": audit,
    "docs": docs, "versions": versions, "django": django, "upgrade": upgrade, "build": build,
    "release": release, "rehearse": rehearse, "bench": bench, "ci": ci,
}  # fmt: skip


def main() -> None:
    word, *arguments = sys.argv[1:] or ["help"]
    if word not in TASKS:
        sys.exit(__doc__)
    if sys.version_info < (3, 11):
        sys.exit("durable_notify needs Python 3.11 or later")
    if word != "docs":
        setup()
    TASKS[word](*arguments)


if __name__ == "__main__":
    main()
