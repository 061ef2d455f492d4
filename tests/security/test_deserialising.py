"""What comes from outside is read as JSON: nothing is unpickled, and no code is made of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "durable_notify"
MIGRATIONS = Path(__file__).parents[2] / "migrations"

MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve",
    "dbm", "yaml", "code", "codeop", "imp", "xml", "lxml",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
#: Calls of a module's: `logging.config.listen` and the like take code from whoever connects.
ATTRIBUTES = {"run_path", "run_module", "listen_config", "import_module", "from_buffer"}
#: What stands nevertheless: file, name, and why.
ALLOWED: dict[tuple[str, str], str] = {}


def found_in(source: str, name: str) -> Iterator[str]:
    """What a file imports or calls of these."""
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
            yield from (module for module in names if module in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in MODULES:
                yield node.module
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in CALLS | ATTRIBUTES:
                yield function.id
            elif isinstance(function, ast.Attribute) and function.attr in ATTRIBUTES:
                yield function.attr
            shell = [word for word in node.keywords if word.arg == "shell"]
            if any(not isinstance(word.value, ast.Constant) or word.value.value for word in shell):
                yield "shell"


def test_nothing_is_unpickled_or_evaluated() -> None:
    files = sorted([*PACKAGE.rglob("*.py"), *MIGRATIONS.rglob("*.py")])
    assert len(files) > 50
    found = {
        (str(path.relative_to(PACKAGE.parent)), what)
        for path in files
        for what in found_in(path.read_text(encoding="utf-8"), str(path))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import os, marshal as m", "from pickle import loads", "import yaml.loader",
        "def f():\n    from shelve import open", "eval('1')", "exec(x)", "compile(a, b, c)",
        "__import__(x)", "importlib.import_module(x)", "runpy.run_path(x)",
        "subprocess.run(x, shell=True)", "subprocess.run(x, shell=y)",
    ],
)  # fmt: skip
def test_it_would_be_noticed(source: str) -> None:
    assert list(found_in(source, "planted"))


@pytest.mark.parametrize("source", ["re.compile(x)", "json.loads(x)", "run(x, shell=False)"])
def test_what_is_harmless_is_not(source: str) -> None:
    assert not list(found_in(source, "harmless"))
