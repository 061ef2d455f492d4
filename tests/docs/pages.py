"""Read the fenced blocks of a page, and run them as a reader would.

- ``python``: in order, in one namespace a page; ``await`` may stand at the top level.
- ``sql``: each block in a psql of its own, in autocommit mode.
- ``console``: each block in a shell of its own; lines after ``$ `` are the commands, those after
  ``> `` continue them, the others are what they print.
- ``text`` right after a ``python`` or ``sql`` block: what that prints. ``...`` stands for anything.
- ``<!-- file: NAME -->`` above a block: it is written to that file instead.
- ``<!-- from: PATH -->`` above a block: it is a part of that file, word for word, and not run.
- ``<!-- not run: REASON -->`` above a block: it is shown only.

Blocks of other languages, or of none, are not run.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path

from tests.support.postgres import CHECKOUT

PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted(CHECKOUT.glob("docs/*.md"))]

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>file|from|not run): (?P<value>[^\n]+?) -->\n+)?"
    r"```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
TIMEOUT = 100


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block, and the line of the page at which its text begins."""

    page: Path
    line: int
    language: str
    text: str
    mark: str | None
    value: str | None
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page; what one prints belongs to it."""
    source = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(source):
        line = source.count("\n", 0, match.start("text")) + 1
        gap = source[end : match.start()]
        end = match.end()
        language, text = match["language"], match["text"]
        if language == "text" and found and not gap.strip():
            found[-1] = dataclasses.replace(found[-1], output=text)
        else:
            found.append(Block(page, line, language, text, match["mark"], match["value"]))
    return found


class Runner:
    """Runs the blocks of one page, in a folder, against a database."""

    def __init__(self, folder: Path, dsn: str, psql: list[str], environ: dict[str, str]) -> None:
        self.folder = folder
        self.psql = [*psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn]
        self.psql_environ = environ
        self.environ = os.environ | {
            "DURABLE_NOTIFY_DSN": dsn,
            "DATABASE_URL": dsn,
            "DURABLE_NOTIFY_TEST_SERVER": dsn,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }
        self.module = types.ModuleType("page")

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """In the folder and environment of the page."""
        before = dict(os.environ)
        sys.modules[self.module.__name__] = self.module  # dataclasses and pydantic look there
        os.environ.update(self.environ)
        try:
            with contextlib.chdir(self.folder), asyncio.Runner() as self.loop:
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            del sys.modules[self.module.__name__]

    def run(self, block: Block) -> None:
        """Run one block; it must not fail, and print what the page says."""
        if block.mark == "not run":
            return
        if block.mark == "from":
            assert is_quoted(block), f"{block} is not a part of {block.value}"
            return
        if block.mark == "file":
            assert block.value is not None
            target = self.folder / block.value
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
            return
        if block.language == "python":
            agrees(block, block.output, self._python(block))
        elif block.language == "sql":
            agrees(block, block.output, self._shell(block, self.psql, block.text))
        elif block.language == "console":
            script, expected = commands(block)
            agrees(block, expected, self._shell(block, ["bash", "-e", "-o", "pipefail"], script))

    def _python(self, block: Block) -> str:
        # Empty lines before it: a traceback then names the line of the page.
        code = compile(
            "\n" * (block.line - 1) + block.text,
            str(block.page),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if code.co_flags & inspect.CO_COROUTINE:

                async def body() -> None:
                    await eval(code, self.module.__dict__)

                self.loop.run(body())
            else:
                exec(code, self.module.__dict__)
        return printed.getvalue()

    def _shell(self, block: Block, command: list[str], script: str) -> str:
        environ = self.psql_environ if command is self.psql else self.environ
        done = subprocess.run(
            command,
            input=script,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=environ,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, f"{block} failed:\n{done.stdout}"
        return done.stdout


def is_quoted(block: Block) -> bool:
    """Whether a block is a part of the file that it names, but for the indent."""
    assert block.value is not None
    lines = (CHECKOUT / block.value).read_text(encoding="utf-8").splitlines(keepends=True)
    count = block.text.count("\n")
    parts = ("".join(lines[n : n + count]) for n in range(len(lines)))
    return any(textwrap.dedent(part) == block.text for part in parts)


def commands(block: Block) -> tuple[str, str]:
    """The script of a console block, and what it is to print."""
    script, expected = [], []
    for line in block.text.splitlines():
        if line.startswith(("$ ", "> ")):
            script.append(line[2:])
        else:
            expected.append(line)
    assert script, f"{block} has no command"
    return "\n".join(script) + "\n", "\n".join(expected)


def agrees(block: Block, expected: str | None, printed: str) -> None:
    """Fail where a block printed something else than the page says."""
    expected = "" if expected is None else _tidy(expected)
    printed = _tidy(printed)
    pattern = ".*?".join(re.escape(part) for part in expected.split("..."))
    if re.fullmatch(pattern, printed, re.DOTALL) is None:
        raise AssertionError(f"{block} printed:\n{printed}\n\nand the page says:\n{expected}")


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
