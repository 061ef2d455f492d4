"""Count the files and functions that one message passes, from publish() until it is settled.

python -m tests.docs.way DSN

SQL: what publish(), the trigger, claim() and settle() call, as their text says. Python: what runs,
from a publish() that wakes a sleeping consumer until the message's acknowledgement is durable.
"""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg

import durable_notify as dn
from tests.support.wait import eventually

PACKAGE = Path(dn.__file__).parent
SCHEMA = PACKAGE.parent / "migrations" / "schema"
ENTRIES = ("publish", "_outbox_after_insert", "claim", "settle")


def sql_functions() -> dict[str, Path]:
    """The SQL functions on the way, with their files; for the owner, who needs no twin."""
    bodies: dict[str, tuple[str, Path]] = {}
    for path in sorted(SCHEMA.rglob("*.sql")):
        for text in path.read_text(encoding="utf-8").split("CREATE FUNCTION durable_notify.")[1:]:
            body = text.partition("$function$;")[0]  # after it the file declares who may call it
            bodies[re.split(r"\W", text, maxsplit=1)[0]] = re.sub(r"--.*|HINT = .*", "", body), path
    found: dict[str, Path] = {}
    ahead = list(ENTRIES)
    while ahead:
        name = ahead.pop()
        if name in found or name not in bodies or name.endswith("_granted"):
            continue
        body, found[name] = bodies[name]
        ahead += re.findall(r"durable_notify\.(\w+)\(", body)
    return found


def python_functions(dsn: str) -> set[tuple[str, str]]:
    """The files of the package, with the functions, that run on the way of one message."""
    found: set[tuple[str, str]] = set()
    tracing, handled, settled = threading.Event(), threading.Event(), threading.Event()

    def note(frame: Any, event: str, _: object) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(str(PACKAGE)) and not code.co_name.startswith("<")
        if event == "call" and tracing.is_set() and ours:
            found.add((str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname))

    def on_event(event: object) -> None:
        if isinstance(event, dn.events.Settled):
            settled.set()

    with psycopg.connect(dsn, autocommit=True) as connection:
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            with dn.Consumer(dsn, group="way", topics=["way"], on_event=on_event) as consumer:
                running = threading.Thread(target=consumer.run, args=[lambda _: handled.set()])
                running.start()
                eventually(lambda: consumer.health().state == "sleeping")
                tracing.set()
                dn.Publisher().publish(connection, "way", {"n": 1})
                assert handled.wait(20)
                assert settled.wait(20)
                tracing.clear()
                consumer.stop()
                running.join(20)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return found


def main() -> None:
    """Print both counts, and what was counted."""
    sql, python = sql_functions(), python_functions(sys.argv[1])
    print(f"SQL: {len(sql)} functions in {len(set(sql.values()))} files")
    print(f"Python: {len(python)} functions in {len({file for file, _ in python})} files")
    for path, name in sorted([*((str(p.relative_to(SCHEMA)), n) for n, p in sql.items()), *python]):
        print(f"  {path}: {name}")


if __name__ == "__main__":
    main()
