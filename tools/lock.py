"""The lock: the release of every development package, and its hashes.

python tools/lock.py            write requirements/dev.lock (asks the package index)
python tools/lock.py --check    check that it matches pyproject.toml (asks no index)

It covers every supported platform and Python; packages for only one have a marker.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "dev.lock"
OLDEST_PYTHON = "3.11"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


def wanted(project: str) -> list[str]:
    """Return the requirements of a pyproject.toml: dependencies, group dev, and its extras."""
    about = tomllib.loads(project)
    own = about["project"]["name"]
    needed = list(about["project"]["dependencies"])
    for requirement in map(Requirement, about["dependency-groups"]["dev"]):
        if requirement.name != own:
            needed.append(str(requirement))
        for extra in sorted(requirement.extras) if requirement.name == own else ():
            needed += about["project"]["optional-dependencies"][extra]
    return needed


def problems(project: str, lock: str) -> list[str]:
    """Return what of a lock does not match the requirements, or does not belong in a lock."""
    pinned: dict[str, list[str]] = {}
    for name, release in _PINNED.findall(lock):
        pinned.setdefault(canonicalize_name(name), []).append(release)
    found = []
    for requirement in map(Requirement, wanted(project)):
        releases = pinned.get(canonicalize_name(requirement.name))
        if not releases:
            found.append(f"{requirement.name} is not in it")
        elif not any(requirement.specifier.contains(one, prereleases=True) for one in releases):
            found.append(f"{requirement} is wanted, {', '.join(releases)} is in it")
    entries = re.split(r"^(?=[A-Za-z0-9])", "\n".join(_lines(lock)), flags=re.MULTILINE)
    found += [
        f"{entry.split()[0]} has no release, or no hash"
        for entry in filter(str.strip, entries)
        if not _PINNED.match(entry) or "--hash=sha256:" not in entry
    ]
    if re.search(r"://|^\s*-[a-z]|@ file|^\s*--(?!hash)", "\n".join(_lines(lock)), re.MULTILINE):
        found.append("it has an address or an option in it")
    return found


def _lines(lock: str) -> list[str]:
    return [line for line in lock.splitlines() if not line.lstrip().startswith("#")]


def compiled(project: str) -> str:
    """Ask uv for the newest compatible releases."""
    command = [
        "uv", "pip", "compile", "-", "--quiet", "--no-config", "--universal", "--generate-hashes",
        "--no-emit-index-url", "--no-annotate", "--python-version", OLDEST_PYTHON,
        "--custom-compile-command", "python3 tasks.py lock",
    ]  # fmt: skip
    given = "\n".join(wanted(project))
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Write the lock, or check it."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        LOCK.parent.mkdir(exist_ok=True)
        LOCK.write_text(compiled(project), encoding="utf-8")
    if found := problems(project, LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""):
        sys.exit(f"{LOCK.relative_to(ROOT)}: {'; '.join(found)}. Run: python3 tasks.py lock")


if __name__ == "__main__":
    main()
