"""Check the built site: links, anchors, and that it loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
HOME = "http://site.invalid/"
"""Where the site is taken to be, to tell its links from others."""
_CSS_URL = re.compile(r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//[^)'\"\s]+")
_NOT_LOADED = {"canonical", "next", "prev", "alternate", "edit"}


@dataclasses.dataclass
class Page(HTMLParser):
    """What a page has: its anchors, its links, and what it loads; those in its navigation apart."""

    anchors: set[str] = dataclasses.field(default_factory=set)
    links: list[str] = dataclasses.field(default_factory=list)
    loads: list[str] = dataclasses.field(default_factory=list)
    images_without_text: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record a tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given and given.get("rel") not in _NOT_LOADED:
            self.loads.append(given[LOADING[tag]])
        if tag == "img" and not given.get("alt"):
            self.images_without_text.append(given.get("src", ""))

    __hash__ = object.__hash__


def read(site: Path) -> dict[str, Page]:
    """Read the pages of a site, by path."""
    pages = {}
    for file in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(file.read_text(encoding="utf-8"))
        pages[file.relative_to(site).as_posix()] = page
    return pages


def target(path: str, link: str) -> tuple[str, str] | None:
    """Return the file and the anchor that a link of a page leads to; None: it leaves the site."""
    address, anchor = urldefrag(urljoin(f"{HOME}{path}", link))
    parts = urlsplit(address)
    if not address.startswith(HOME):
        return None
    found = unquote(parts.path).lstrip("/")
    return (f"{found}index.html" if not found or found.endswith("/") else found), unquote(anchor)


def broken(site: Path, pages: dict[str, Page], path: str) -> Iterator[str]:
    """Yield what is wrong with a page."""
    for link in pages[path].links:
        file, anchor = target(path, link) or (None, "")
        if file is not None and not (site / file).is_file():
            yield f"{path} links to {file}, which is not there"
        elif file in pages and anchor not in pages[file].anchors | {"", "__top"}:
            yield f"{path} links to {file}#{anchor}, which is not there"
    for address in pages[path].loads:
        goal = target(path, address)
        if goal is None and not address.startswith("data:"):
            yield f"{path} loads {address}"
        elif goal and not (site / goal[0]).is_file():
            yield f"{path} loads {goal[0]}, which is not there"
    for source in pages[path].images_without_text:
        yield f"{path} has an image without a text: {source}"


def problems(site: Path) -> list[str]:
    """Return what is wrong with a built site."""
    pages = read(site)
    pages.pop("404.html", None)  # its links are from the site's root, wherever that is
    found = {problem for path in pages for problem in broken(site, pages, path)}
    links = {(path, target(path, link)) for path, page in pages.items() for link in page.links}
    reached = {goal[0] for path, goal in links if goal and goal[0] != path}
    found |= {f"no page links to {path}" for path in pages.keys() - reached}
    for file in site.rglob("*.css"):
        for address in _CSS_URL.findall(file.read_text(encoding="utf-8")):
            found.add(f"{file.relative_to(site)} loads {address}")
    return sorted(found)
