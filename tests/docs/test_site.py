"""The site has every page, public name and SQL function; and its checks find what is wrong."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from tests.docs.pages import PAGES
from tests.support.postgres import CHECKOUT
from tools.docs import api_reference, build, check, sql_reference, stage

API = api_reference.pages()
ENTRIES = {
    name for text in API.values() for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
}
FUNCTIONS = {function.name: function for function in sql_reference.functions()}
STAGED = build.staged()


def test_every_public_name_has_an_entry() -> None:
    """Those of durable_notify, and of each module that documents and examples import from."""
    wanted = {f"durable_notify.{name}" for name in dn.__all__}
    wanted |= {f"durable_notify.errors.{name}" for name in dn.errors.__all__}
    wanted |= {f"durable_notify.models.{name}" for name in dn.models.__all__}
    for page in (*PAGES, *CHECKOUT.glob("examples/*.py")):
        text = page.read_text(encoding="utf-8")
        for module, names in re.findall(
            r"^from (durable_notify[\w.]*) import ([\w, ]+)$", text, re.MULTILINE
        ):
            wanted |= {f"{module}.{name.split()[0]}" for name in names.split(", ")}
    entry_of = {
        f"durable_notify.{name}": f"durable_notify.errors.{name}" for name in dn.errors.__all__
    }
    packages = {"durable_notify.brokers", "durable_notify.integrations"}
    assert {entry_of.get(name, name) for name in wanted - packages} - ENTRIES == set()


def test_options_of_every_call_have_an_entry() -> None:
    """A signature that ends with ``**options: Unpack[ConsumerSettings]`` says nothing else of them."""
    calls = [
        call
        for page in api_reference.PAGES
        for module, names in api_reference.documented(page)
        for name in names
        if callable(thing := getattr(importlib.import_module(module), name))
        for call in (thing, *(member for _, member in inspect.getmembers(thing, callable)))
    ]
    annotations = [getattr(call, "__annotations__", {}).get("options", "") for call in calls]
    named = {name for text in annotations for name in re.findall(r"Unpack\[(\w+)\]", str(text))}
    assert named >= {"ConsumerSettings", "PublishOptions"}
    assert named - {name.rpartition(".")[2] for name in ENTRIES} == set()


def test_every_entry_is_public_and_documented() -> None:
    for page in api_reference.PAGES:
        for module, names in api_reference.documented(page):
            there = importlib.import_module(module)
            assert module == "durable_notify" or inspect.getdoc(there), module
            for name in names:
                assert not name.startswith("_") or name == "__version__"
                assert name in there.__all__, f"{module}.{name}"
                if inspect.isclass(thing := getattr(there, name)) or inspect.isfunction(thing):
                    assert inspect.getdoc(thing), f"{module}.{name}"


def test_docstrings_are_markdown() -> None:
    """The site, editors and llms-full.txt read them so: no roles, and no ``::`` before a block."""
    for path in (CHECKOUT / "durable_notify").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"::$|(?<!\w):[a-z]+:`", text, re.MULTILINE), path


def test_sql_functions_are_those_of_the_database(conn: psycopg.Connection) -> None:
    query = """
        SELECT p.proname, p.prokind = 'p', COALESCE(g.actions, '{}'), (
               SELECT array_agg(a.name) FROM unnest(p.proargnames) AS a (name))
          FROM pg_proc p
          LEFT JOIN durable_notify._grantable_functions() g ON g.function = p.proname
         WHERE p.pronamespace = 'durable_notify'::regnamespace AND p.proname NOT LIKE '\\_%'
    """
    there = {row[0]: row[1:] for row in conn.execute(query)}
    assert set(there) == set(FUNCTIONS)
    for name, (is_procedure, actions, arguments) in there.items():
        function = FUNCTIONS[name]
        assert (function.kind == "procedure") == is_procedure
        assert list(function.grants) == actions, name
        assert not [
            one for one in arguments or [] if not re.search(rf"\b{one} ", function.signature)
        ], name
        assert (CHECKOUT / function.path).is_file()


def test_every_sql_function_has_an_entry() -> None:
    texts = sql_reference.pages()
    for name, function in FUNCTIONS.items():
        (entry,) = re.findall(
            rf"^## {name}\n(.*?)(?=^## |\Z)",
            texts[f"{function.subject}.md"],
            re.MULTILINE | re.DOTALL,
        )
        assert all(word in entry for word in ("```sql\n", "**May call it:**", "**Source:**")), name
    assert (
        "**Returns:** whether it was\n" in texts[f"{FUNCTIONS['resign_active'].subject}.md"]
    )  # from docs/sql.md


def test_comments_become_markdown() -> None:
    comment = """\
    -- Do a thing for _some_topic(), of a * and <b>. This line is long enough to be one that is full
    -- so that this continues. a: the first; b_c and d: others.
    -- An idea of its own:
    --   x: one
    --   y: two
    --
    -- Trap: it is 'none'.
"""
    text = sql_reference.prose(comment, "f(a text, b_c text, d text)")
    assert text.splitlines() == [
        "Do a thing for `_some_topic()`, of a \\* and \\<b>. This line is long enough to be one that is full so that this continues.",
        "", "- `a`: the first; `b_c` and d: others.", "", "An idea of its own:", "", "- `x`: one", "- `y`: two", "", "**Trap:** it is `'none'`.",
    ]  # fmt: skip


def test_every_page_is_in_the_navigation() -> None:
    assert build.unlisted(set(STAGED.pages)) == []
    assert build.unlisted({*STAGED.pages, "api/new.md"} - {"tour.md"}) == [
        "zensical.toml lacks api/new.md in nav",
        "zensical.toml has tour.md in nav, which is not there",
    ]


def test_the_tour_is_a_page() -> None:
    assert "### Publish in your transaction" in STAGED.pages["tour.md"]
    assert "(tour.md#a-five-minute-tour)" in STAGED.pages["index.md"]
    assert "(tour.md#a-five-minute-tour)" in STAGED.pages["pages.md"]
    assert "](replay.md#" in STAGED.pages["tour.md"]


def test_links_to_files_lead_to_pages_that_show_them() -> None:
    text = STAGED.pages["follow-a-message.md"]
    assert "](repository/migrations/schema/claim/claim.sql.md)" in text
    shown = STAGED.pages["repository/migrations/schema/claim/claim.sql.md"]
    assert "````sql\nCREATE FUNCTION durable_notify.claim(" in shown
    assert "](../sql.md" in STAGED.pages["decisions/rights.md"] + STAGED.pages["decisions/names.md"]
    for name, page in STAGED.pages.items():
        for line, is_prose in stage.outside_fences(page):
            links = stage._LINK.findall(line) if is_prose else []
            for link, _ in links:
                goal = (Path("/") / name).parent / link
                found = goal.resolve().relative_to("/").as_posix()
                assert not link or found in STAGED.pages or (CHECKOUT / "docs" / found).is_file(), (
                    name,
                    link,
                )


def test_lists_are_indented_as_the_generator_wants() -> None:
    text = "- a\n  b\n  - c\n\n    ```\n      d\n    ```\n1. e\n   f\n\ng\n  h"
    wanted = "- a\n    b\n    - c\n\n        ```\n          d\n        ```\n1. e\n    f\n\ng\n  h"
    assert stage.indented(text) == wanted
    fenced = "```text\n- a\n  - b\n```"
    assert stage.indented(fenced) == fenced


GOOD = (
    '<a href="b.html#x">b</a><img src="i.svg" alt="a drawing"><link rel="stylesheet" href="s.css">'
)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("", None),
        ('<a href="https://example.org/">elsewhere</a><a href="#here">here</a><p id="here">', None),
        ('<a href="c.html">c</a>', "a.html links to c.html, which is not there"),
        ('<a href="b.html#y">b</a>', "a.html links to b.html#y, which is not there"),
        ('<a href="#y">y</a>', "a.html links to a.html#y, which is not there"),
        ('<script src="https://example.org/x.js"></script>', "a.html loads https://example.org/x.js"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "a.html loads //example.org/x.css"),
        ('<script src="x.js"></script>', "a.html loads x.js, which is not there"),
        ('<img src="i.svg">', "a.html has an image without a text: i.svg"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_page_is_found(tmp_path: Path, more: str, problem: Any) -> None:
    (tmp_path / "a.html").write_text(GOOD + more)
    (tmp_path / "b.html").write_text('<h1 id="x">b</h1><a href="a.html">a</a>')
    (tmp_path / "i.svg").write_text("<svg/>")
    (tmp_path / "s.css").write_text("@font-face { src: url(font.woff) }")
    assert check.problems(tmp_path) == ([problem] if problem else [])


def test_what_is_wrong_with_a_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="a.html">a</a>')
    (tmp_path / "s.css").write_text(
        "@import 'https://example.org/x.css'; a { background: url(//example.org/y) }"
    )
    assert check.problems(tmp_path) == [
        "no page links to a.html",
        "s.css loads @import 'https://example.org/x.css",
        "s.css loads url(//example.org/y",
    ]
