"""The errors, as one tree, and how the database's become ours."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from durable_notify import errors
from durable_notify._core.sqlstate import map_errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    documented = re.findall(r"^([ │├└─]*)(\w+)(?: \((\w+)\))?(?: |$)", tree(), re.MULTILINE)
    parents: dict[int, str] = {}
    found = {}
    for indent, name, builtin in documented:
        depth = len(indent) // 4
        parents[depth] = name
        bases = [parents[depth - 1]] if depth else ["Exception"]
        found[name] = bases + ([builtin] if builtin else [])
    assert found == {kind.__name__: [base.__name__ for base in kind.__bases__] for kind in CLASSES}


def tree() -> str:
    text = errors.__doc__ or ""
    return "\n".join(line[4:] for line in text.partition("Django.\n\n")[2].splitlines())


@pytest.mark.parametrize("kind", CLASSES)
def test_each_is_documented(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.DurableNotifyError)
    assert kind.__doc__


def test_all_of_them_are_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert defined == set(errors.__all__)


class FromTheDatabase(Exception):
    def __init__(self, sqlstate: str | None, hint: str | None = None) -> None:
        super().__init__("the whole text\nCONTEXT: somewhere")
        self.sqlstate = sqlstate
        self.diag = SimpleNamespace(message_primary="what happened", message_hint=hint)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("DN001", errors.LeaseLost), ("DN002", errors.AlreadySettled),
        ("DN003", errors.SettleError), ("DN004", errors.ClaimRefused),
        ("DN005", errors.UnknownGroup), ("DN006", errors.UnknownTopic),
        ("22023", errors.InvalidArgument),
    ],
)  # fmt: skip
def test_sqlstates(sqlstate: str, kind: type[Exception]) -> None:
    original = FromTheDatabase(sqlstate, "Do this.")
    with pytest.raises(kind, match=r"^what happened\. Do this\.$") as caught, map_errors():
        raise original
    assert type(caught.value) is kind
    assert caught.value.__cause__ is original


@pytest.mark.parametrize(
    "error", [FromTheDatabase("40001"), FromTheDatabase(None), ValueError("x")]
)
def test_others_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, map_errors():
        raise error
    assert caught.value is error


def test_no_hint_and_no_diagnostics() -> None:
    with pytest.raises(errors.LeaseLost, match=r"^what happened$"), map_errors():
        raise FromTheDatabase("DN001")
    bare = FromTheDatabase("DN002")
    del bare.diag
    with pytest.raises(errors.AlreadySettled, match=r"^the whole text"), map_errors():
        raise bare
