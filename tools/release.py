"""Say what is missing for the release of a tag.

python3 tasks.py release v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from durable_notify import schema
from durable_notify._version import __version__

ROOT = Path(__file__).resolve().parent.parent


def missing(tag: str, root: Path = ROOT) -> list[str]:
    """Return what a release of this tag still lacks."""
    found = []
    if tag != f"v{__version__}":
        found.append(f"the tag is {tag}, and durable_notify/_version.py says {__version__}")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(tag[1:])} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no line `## {tag[1:]} (YEAR-MONTH-DAY)`")
    sums = (root / "migrations" / "revisions" / "SHA256SUMS").read_text(encoding="utf-8")
    found += [
        f"revision {step.revision} is not frozen: python3 tasks.py revision --freeze"
        for step in schema.steps("base", "head")
        if f"  {step.revision}_" not in sums
    ]
    return found


def main(arguments: list[str]) -> None:
    """Exit with what is missing, or say that nothing is."""
    if len(arguments) != 1:
        sys.exit("Name the tag: python3 tasks.py release v0.1.0")
    if found := missing(arguments[0]):
        sys.exit("\n".join(found))
    print(f"{arguments[0]} can be released")


if __name__ == "__main__":
    main(sys.argv[1:])
