"""Make a release, or say what the commit of a tag lacks.

python3 tasks.py release v0.1.0           date the changelog, freeze the revision, commit, and tag
python3 tasks.py release --check v0.1.0   say what is missing; the workflow of a pushed tag does

It refuses, and changes nothing, if the tree is not clean, the tag is already there, or
durable_notify/_version.py or CHANGELOG.md has another version. It pushes nothing.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

from durable_notify import schema
from durable_notify._version import __version__

ROOT = Path(__file__).resolve().parent.parent


def open_revisions(root: Path = ROOT) -> list[str]:
    """Return the revisions that are not frozen: one at most."""
    sums = (root / "migrations" / "revisions" / "SHA256SUMS").read_text(encoding="utf-8")
    steps = schema.steps("base", "head")
    return [step.revision for step in steps if f"  {step.revision}_" not in sums]


def is_dated(tag: str, root: Path = ROOT) -> bool:
    """Whether the changelog has the day of this release."""
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## {re.escape(tag[1:])} \(\d{{4}}-\d\d-\d\d\)$"
    return bool(re.search(heading, changelog, re.MULTILINE))


def of_another_version(tag: str) -> list[str]:
    """Return the complaint about a tag that is not of the package's version."""
    if tag == f"v{__version__}":
        return []
    return [f"the tag is {tag}, and durable_notify/_version.py says {__version__}"]


def missing(tag: str, root: Path = ROOT) -> list[str]:
    """Return what a release of this tag still lacks."""
    found = of_another_version(tag)
    if not is_dated(tag, root):
        found.append(f"CHANGELOG.md has no line `## {tag[1:]} (YEAR-MONTH-DAY)`")
    return found + [f"revision {revision} is not frozen" for revision in open_revisions(root)]


def git(*arguments: str) -> str:
    """Run git, and exit if it fails; return what it prints."""
    command = ("git", *arguments)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {arguments[0]} failed")
    return done.stdout.strip()


def obstacles(tag: str) -> list[str]:
    """Return what is in the way of making this release."""
    found = of_another_version(tag)
    if changed := git("status", "--porcelain"):
        found.append(f"commit or remove first:\n{changed}")
    if git("tag", "--list", tag):
        found.append(f"the tag {tag} is already there: raise durable_notify/_version.py")
    unreleased = f"## {tag[1:]} (unreleased)\n"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if unreleased not in changelog and not is_dated(tag):
        found.append(f"CHANGELOG.md has no line `{unreleased.strip()}`")
    return found


def make(tag: str) -> None:
    """Freeze the open revision, date the changelog, commit, and tag that commit."""
    if found := obstacles(tag):
        sys.exit("\n".join(found))
    if open_revisions():  # first: it may refuse, and has then changed nothing
        freeze = (sys.executable, "-m", "tools.revision", "--freeze")
        if subprocess.run(freeze, cwd=ROOT, check=False).returncode:
            sys.exit("the revision was not frozen")
    path = ROOT / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    today = dt.datetime.now(dt.UTC).date().isoformat()
    path.write_text(text.replace(f"## {tag[1:]} (unreleased)\n", f"## {tag[1:]} ({today})\n"))
    git("add", "--all")
    if git("status", "--porcelain"):
        git("commit", "--quiet", "--message", f"release: {tag}")
    git("tag", "--annotate", "--message", f"durable_notify {tag[1:]}", tag)
    print(f"{tag} is made, and not pushed: git push --follow-tags")


def main(arguments: list[str]) -> None:
    """Make a release; or exit with what is missing, or say that nothing is."""
    *options, tag = arguments or [""]
    if not tag.startswith("v") or options not in ([], ["--check"]):
        sys.exit("Name the tag: python3 tasks.py release v0.1.0")
    if not options:
        make(tag)
    elif found := missing(tag):
        sys.exit("\n".join(found))
    else:
        print(f"{tag} can be released")


if __name__ == "__main__":
    main(sys.argv[1:])
