"""Run Django's tests on each supported release, in a virtual environment of its own.

python -m tests.integrations.django_site.versions [RELEASE ...]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.postgres import CHECKOUT, needed_binaries, own_server
from tools.rehearse import PYTHONS, find

#: The supported releases, and the oldest Python of each.
RELEASES = {"5.2": (3, 11), "6.0": (3, 12), "6.1": (3, 12)}
VENVS = CHECKOUT / ".cache" / "django"


def find_python(oldest: tuple[int, ...]) -> str | None:
    """Return the newest Python that this release supports."""
    for version in reversed(PYTHONS):
        new_enough = tuple(map(int, version.split("."))) >= oldest
        if new_enough and (found := find(version)) is not None:
            return found
    return None


def environment(release: str, python: str) -> Path | None:
    """Make a virtual environment with this Django; None: no package index answers."""
    folder = VENVS / release
    program = folder / "bin" / "python"
    if (folder / "installed").exists():
        return program
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], f"django~={release}.0"]
    wanted += project["optional-dependencies"]["pydantic"]
    wanted += ["django-tasks>=0.12"] if release == "5.2" else []
    install = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    if subprocess.run(install, check=False).returncode:
        return None
    (folder / "installed").touch()
    return program


def main(*wanted: str) -> int:
    """Run the tests, and return how many releases failed: in CI, or could not be tested."""
    failed = 0
    with own_server(needed_binaries()) as server:
        for release in wanted or RELEASES:
            python = find_python(RELEASES[release])
            program = python and environment(release, python)
            if not program:
                why = "no package index answers" if python else "there is no Python for it"
                print(f"Django {release}: NOT DONE, {why}", flush=True)
                failed += "CI" in os.environ
                continue
            print(f"Django {release}", flush=True)
            site = CHECKOUT / "tests" / "integrations" / "django_site"
            shop = CHECKOUT / "examples" / "django_shop"
            environ = os.environ | {
                "DURABLE_NOTIFY_DSN": server.dsn(),
                "PYTHONPATH": os.pathsep.join(map(str, (CHECKOUT, shop, site))),
                "DJANGO_SETTINGS_MODULE": "guarantee_settings",
            }
            command = [program, "-W", "error", "-m", "django", "test", "--noinput"]
            done = subprocess.run([*command, "guarantees", "shop"], env=environ, check=False)
            failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
