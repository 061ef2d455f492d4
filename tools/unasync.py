"""Generate durable_notify/_sync from durable_notify/_async.

python tools/unasync.py           write the files
python tools/unasync.py --check   fail if they are not current

A rule that matches nothing is out of date, and fails. It follows httpcore's ``scripts/unasync.py``,
but compares whole files.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "durable_notify"
BY_HAND = "concurrency.py"  # waiting and starting tasks: each API has its own
HEADER = "# Generated from durable_notify/_async by tools/unasync.py. Do not edit.\n"

RULES = [
    # SQLAlchemy keeps its two APIs in different modules.
    (r"from sqlalchemy\.ext\.asyncio import AsyncConnection as AlchemyAsyncConnection",
     "from sqlalchemy import Connection as AlchemyConnection"),
    (r"from sqlalchemy\.ext\.asyncio import AsyncSession as AlchemyAsyncSession",
     "from sqlalchemy.orm import Session as AlchemySession"),
    (r"AlchemyAsync(\w+)", r"Alchemy\1"),
    (r"\bcheck_async\b", "check"),
    (r"(?<!dn\.)\brun_async\b", "run"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAbstractAsyncContextManager\b", "AbstractContextManager"),
    (r"\b(_?)Async([A-Z]\w*)", r"\1\2"),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
]  # fmt: skip


def generate() -> dict[str, str]:
    """Return the generated files by name."""
    used = set()
    files = {}
    for source in sorted((PACKAGE / "_async").rglob("*.py")):
        name = str(source.relative_to(PACKAGE / "_async"))
        if name == BY_HAND:
            continue
        text = source.read_text()
        for pattern, replacement in RULES:
            text, count = re.subn(pattern, replacement, text)
            if count:
                used.add(pattern)
        files[name] = HEADER + text if text else ""
    if unused := {pattern for pattern, _ in RULES} - used:
        sys.exit(f"these rules match nothing: {sorted(unused)}")
    return {name: formatted(text, name) for name, text in files.items()}


def formatted(text: str, name: str) -> str:
    """Return the formatted text, because shorter names change line breaks."""
    command = [sys.executable, "-m", "ruff"]
    where = ["--stdin-filename", str(PACKAGE / "_sync" / name), "-"]
    sorting = ["check", "--fix-only", "--quiet", "--select", "I,F401,RUF022"]
    for step in (sorting, ["format", "--quiet"]):
        text = subprocess.run(
            [*command, *step, *where], input=text, capture_output=True, text=True, check=True
        ).stdout
    return text


def main() -> None:
    files = generate()
    target = PACKAGE / "_sync"
    current = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*.py")}
    del current[BY_HAND]
    if "--check" in sys.argv[1:]:
        stale = {
            name for name in files.keys() | current.keys() if files.get(name) != current.get(name)
        }
        if stale:
            sys.exit(f"not current, run python tools/unasync.py: {sorted(stale)}")
        return
    for name in current.keys() - files.keys():
        (target / name).unlink()
    for name, text in files.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(text)


if __name__ == "__main__":
    main()
