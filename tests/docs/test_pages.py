"""What the pages show runs, and prints what they say; their links lead somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from durable_notify.embedded import environment
from tests.docs.pages import PAGES, Block, Runner, blocks, is_quoted
from tests.support.missing import node_with_pg
from tests.support.postgres import CHECKOUT, Postgres

DECISIONS = sorted(CHECKOUT.glob("docs/decisions/*.md"))
LINKING = [*PAGES, *DECISIONS, CHECKOUT / "CHANGELOG.md", CHECKOUT / "examples" / "README.md"]
#: Pages whose programs need node, and the package pg.
WITH_NODE = {"from-listen-notify.md"}
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def name(page: Path) -> str:
    return str(page.relative_to(CHECKOUT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_runs(page: Path, tmp_path: Path, dsn: str, server: Postgres) -> None:
    if page.name in WITH_NODE:
        node_with_pg(tmp_path)
    psql, environ = "psql", dict(os.environ)
    if server.bindir is not None:
        psql, environ = str(server.bindir / "psql"), environment(server.bindir)
    runner = Runner(tmp_path, dsn, [psql], environ)
    with runner.ready():
        for block in blocks(page):
            runner.run(block)


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", LINKING, ids=name)
def test_tables_have_headings(page: Path) -> None:
    """Rows after an empty line are no table: they are shown as text."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for table in re.findall(r"(?m)(?:^ *\|.*\n)+", text):
        assert re.match(r" *\|.*\n *\|[-:| ]+\|\n", table), table


@pytest.mark.parametrize("index", ["docs/index.md", "docs/decisions/README.md"])
def test_every_page_can_be_reached(index: str) -> None:
    page = CHECKOUT / index
    linked = {target for target, _ in _LINK.findall(page.read_text(encoding="utf-8"))}
    assert {other.name for other in page.parent.glob("*.md")} - {page.name} <= linked


def test_a_wrong_quote_is_seen() -> None:
    def quote(text: str) -> Block:
        path = "examples/price_cache.py"
        return Block(CHECKOUT / "README.md", 1, "python", text, "from", path)

    text = "self.prices: dict[str, float] = {}\nself._following: asyncio.Task[None] | None = None\n"
    assert is_quoted(quote(text))
    assert not is_quoted(quote(text.replace("float", "int")))
    assert not is_quoted(quote(text + "more\n"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
