"""What comes from outside is read as JSON: nothing is unpickled, and no code is made of it."""

from __future__ import annotations

import ast
import base64
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

import durable_notify as dn
from durable_notify._core import position
from tests.support.postgres import CHECKOUT


def _token(text: bytes) -> str:
    return "r1." + base64.urlsafe_b64encode(zlib.compress(text)).decode().rstrip("=")


PACKAGE = CHECKOUT / "durable_notify"
MIGRATIONS = CHECKOUT / "migrations"

#: What json.loads() makes of it must be a position, whatever it is.
TOKENS = [
    "", "r1.", "r2.x", "r1.\ud800", "r1.é", "r1.AAAA",
    *(_token(text) for text in (
        b"", b"[", b"[" * 100_000, b"null", b"[]", b'["", []]', b"[1, {}]", b'["", {"t": []}]',
        b'["", {"t": ["3:3:", 0, null, null, 0, 0]}]', b'["", {"t": ["3:3:", -1, null, null, 0]}]',
        b'["", {"t": ["3:3:", 1e3, null, null, 0]}]', b'["", {"a b": ["3:3:", 0, null, null, 0]}]',
        b'["", {"t": ["3:3:;", 0, null, null, 0]}]', b'["", {"t": ["3:3:", true, null, null, 0]}]',
        b'["", {"t": ["3:3:", 0, null, null, NaN]}]', b"\xff", b"[" + b"9" * 5000 + b", {}]",
    )),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(TOKENS)))
def test_a_token_that_is_none_is_refused(index: int) -> None:
    with pytest.raises(dn.InvalidArgument, match="start is"):
        position.decode(TOKENS[index])


def test_a_token_that_would_fill_the_memory_is_refused() -> None:
    """A megabyte that unpacks to 256."""
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(b" " * (1 << 20)) for _ in range(1 << 8)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(dn.InvalidArgument):
            position.decode("r1." + base64.urlsafe_b64encode(packed).decode().rstrip("="))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_a_token_that_is_one_comes_back() -> None:
    some = {"t\u00fc": position.Position("3:7:4,5", 9, "3:9:", 12, 4), "u": position.BEGINNING}
    assert position.decode(position.encode("log", some)) == ("log", some)


MODULES = {
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve",
    "dbm", "yaml", "code", "codeop", "imp", "xml", "lxml",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
#: Calls of a module's: `logging.config.listen` and the like take code from any client.
ATTRIBUTES = {"run_path", "run_module", "listen_config", "import_module", "from_buffer"}
#: What stands nevertheless: file, name, and why.
ALLOWED: dict[tuple[str, str], str] = {
    ("durable_notify/brokers/broker.py", "import_module"): "names of a list of its own",
    ("durable_notify/deprecated.py", "import_module"): "names of a list of its own",
    (
        "durable_notify/cli/handler.py",
        "import_module",
    ): "the code that who runs it asks for: --handler",
}


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
