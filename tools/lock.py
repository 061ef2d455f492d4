"""The locks: the release of every development package, and its hashes.

python tools/lock.py            write requirements/*.lock (asks the package index)
python tools/lock.py --check    check that they match pyproject.toml (asks no index)

There is one for each group of pyproject.toml: dev, and docs for the documentation's site. They
cover every supported platform and Python; packages for only one have a marker.
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
LOCKS = {"dev": LOCK, "docs": ROOT / "requirements" / "docs.lock"}
OLDEST_PYTHON = "3.11"
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


def wanted(project: str, group: str = "dev") -> list[str]:
    """Return the requirements of a group; a group that names the package has its dependencies."""
    about = tomllib.loads(project)
    own = about["project"]["name"]
    needed = []
    for requirement in map(Requirement, about["dependency-groups"][group]):
        if requirement.name == own:
            needed += about["project"]["dependencies"]
            for extra in sorted(requirement.extras):
                needed += about["project"]["optional-dependencies"][extra]
        else:
            needed.append(str(requirement))
    return needed


def problems(project: str, lock: str, group: str = "dev") -> list[str]:
    """Return what of a lock does not match the requirements, or does not belong in a lock."""
    pinned: dict[str, list[str]] = {}
    for name, release in _PINNED.findall(lock):
        pinned.setdefault(canonicalize_name(name), []).append(release)
    found = []
    for requirement in map(Requirement, wanted(project, group)):
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


def compiled(project: str, group: str) -> str:
    """Ask uv for the newest compatible releases."""
    command = [
        "uv", "pip", "compile", "-", "--quiet", "--no-config", "--universal", "--generate-hashes",
        "--no-emit-index-url", "--no-annotate", "--python-version", OLDEST_PYTHON,
        "--custom-compile-command", "python3 tasks.py lock",
    ]  # fmt: skip
    given = "\n".join(wanted(project, group))
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def main() -> None:
    """Write the locks, or check them."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for group, lock in LOCKS.items():
        if "--check" not in sys.argv:
            lock.parent.mkdir(exist_ok=True)
            lock.write_text(compiled(project, group), encoding="utf-8")
        text = lock.read_text(encoding="utf-8") if lock.exists() else ""
        if found := problems(project, text, group):
            path = lock.relative_to(ROOT)
            sys.exit(f"{path}: {'; '.join(found)}. Run: python3 tasks.py lock")


if __name__ == "__main__":
    main()
