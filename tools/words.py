"""Find words that have a plain replacement; CONTRIBUTING.md has the rules and the same list.

Checks the whole text of tracked files: documents, comments, docstrings, errors and names. Lines
between ``words: off`` and ``words: on`` are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: The words to avoid, as patterns, and what to write instead. ``user nobody`` is the system's.
AVOID = {
    "whoever": "who it is: a consumer, a session, a role",
    "somebody": "who it is: a consumer, a session, a role",
    "someone": "who it is: a consumer, a session, a role",
    r"(?<!user\x20)(?<!getpwnam\(\")nobody": "no consumer, no session, no role",
    "everybody": "every consumer, every role",
    "everyone": "every consumer, every role",
    "anew": "again, rewrite, recreate, restart",
    "(?:take|takes|took|taken|taking) note": "record",
    "(?:go|goes|going|gone|went) on": "continue",
    "(?:come|comes|coming|came) again": "is redelivered",
    "to be had": "is available",
    "at work": "runs, is in progress",
    "obey(?:s|ed|ing)?": "apply, follow",
    "mend(?:s|ed|ing)?": "fix, repair",
    "(?:put|puts|putting) right": "fix, repair",
    "amiss": "wrong",
    "unawares": "unnoticed",
    "reckon(?:s|ed|ing)?": "compute",
}
SUFFIXES = (".md", ".py", ".sql", ".mako", ".toml", ".yaml", ".yml", ".mjs", ".pml")
#: The list itself and its test, and what is generated or frozen.
LEFT_OUT = (
    "tools/words.py",
    "tests/unit/test_words.py",
    "durable_notify/_sync/",
    "migrations/revisions/",
)
#: Between words: a line's end, the sign of a comment in the next line, or ``_`` in a name.
GAP = r"(?:\s|#|--|\*|//|_)+"
_WORD = {
    re.compile(rf"(?<![^\W_]){pattern.replace(' ', GAP)}(?![^\W_])", re.IGNORECASE): instead
    for pattern, instead in AVOID.items()
}
_OFF = re.compile(r"words: off.*?(?:words: on|\Z)", re.DOTALL)


def found(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line, word and replacement of each word to avoid."""
    text = _OFF.sub(lambda part: "\n" * part[0].count("\n"), text)
    for word, instead in _WORD.items():
        for match in word.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, " ".join(match[0].split()), instead


def files() -> list[str]:
    """Return the tracked files to check."""
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [
        name
        for name in done.stdout.splitlines()
        if name.endswith(SUFFIXES) and not name.startswith(LEFT_OUT)
    ]


def main() -> int:
    """Print the words found, and return the exit status."""
    status = 0
    for name in files():
        path = ROOT / name
        if not path.exists():  # deleted, and not committed yet
            continue
        for line, word, instead in sorted(found(path.read_text(encoding="utf-8"))):
            print(f'{name}:{line}: avoid "{word}"; write: {instead}')
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
