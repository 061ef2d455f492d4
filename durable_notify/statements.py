"""Split SQL text into statements, because asyncpg prepares each and accepts one at a time."""

from __future__ import annotations

import re

__all__ = ["statements"]

#: Text in which a semicolon does not end a statement, and the semicolon that does. Other text is
#: matched a run at a time. It covers only what our own files use: no nested comments, no U&'...'.
_TOKEN = re.compile(
    r"""
      (?P<comment>--[^\n]*|/\*.*?\*/)
    | (?P<text>
          \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
        | \b[eE]'(?:[^'\\]|''|\\.)*'
        | '(?:[^']|'')*'
        | "(?:[^"]|"")*"
        | [\w$]+ | [^;\w$'"/-]+ | [$'"/-]
      )
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)


def statements(script: str) -> list[str]:
    """Return the statements of a script, without the semicolons that end them."""
    found: list[str] = []
    begun: list[str] = []
    empty = True
    for token in _TOKEN.finditer(script):
        if token["end"]:
            if not empty:
                found.append("".join(begun).strip())
            begun, empty = [], True
            continue
        begun.append(token[0])
        empty = empty and (token["comment"] is not None or token[0].isspace())
    if not empty:
        found.append("".join(begun).strip())
    return found
