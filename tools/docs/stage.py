"""Stage the pages: docs/, README.md, and each file of the repository that they link to.

The generator reads what stands in one folder, by stricter rules than GitHub's. So pages are copied:

- README.md becomes the first page, and its tour another; docs/index.md is the list of pages.
- A link to a file outside docs/ leads to a page under repository/ that shows the file. So the site
  is complete, and shows the code that it describes.
- What stands in a list is indented by four spaces, as Python-Markdown wants it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent.parent
README = "README.md"
TOUR = ("Install", "A five-minute tour")
"""The sections of README.md that make the page of the tour."""
LANGUAGES = {".py": "python", ".sql": "sql", ".mjs": "javascript", ".json": "json", ".toml": "toml"}
LANGUAGES |= {".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".pml": "c"}
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)")
_FENCE = re.compile(r" *(```+|~~~+)")
_ITEM = re.compile(r"( *)([-*]|\d+\.) +")


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections(text: str) -> list[tuple[str, str]]:
    """Split a page at its headings of the second level; the first part has no heading."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def front_pages(readme: str) -> dict[str, str]:
    """Make the first page and the tour of README.md."""
    parts = sections(readme)
    tour = "".join(f"## {title}\n{text}" for title, text in parts if title in TOUR)
    rest = "".join(f"## {title}\n{text}" for title, text in parts[1:] if title not in TOUR)
    start = (
        "**[Install it, and take the five-minute tour](#a-five-minute-tour).** "
        "Or see [every page](docs/index.md).\n\n"
    )
    return {"tour.md": f"# Tour\n\n{tour}", "index.md": parts[0][1] + start + rest}


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {anchor(heading) for heading in headings}


def outside_fences(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is prose; the lines of a fence are not, nor those around."""
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            yield line, False
            if mark and mark[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
        else:
            yield line, mark is None
            fence = mark[1] if mark else ""


def indented(text: str) -> str:
    """Indent what stands in a list by four spaces a level; GitHub takes two or three as well."""
    depths: list[int] = []
    lines = []
    for line, is_prose in outside_fences(text):
        indent = len(line) - len(line.lstrip())
        if line.strip() and (is_prose or _FENCE.match(line)):
            while depths and indent < depths[-1]:
                depths.pop()
        own = depths[-1] if depths else 0
        lines.append(" " * (4 * len(depths)) + line[own:] if line.strip() else line)
        if is_prose and (item := _ITEM.match(line)):
            depths.append(len(item[0]))
    return "\n".join(lines)


class Stage:
    """The pages of the site, by the path at which they are staged."""

    def __init__(self, generated: dict[str, str]) -> None:
        self.pages = dict(generated)
        self._generated = frozenset(generated)
        self.sources: list[str] = []
        self._readme = front_pages((ROOT / README).read_text(encoding="utf-8"))
        self._in_tour = anchors_of(self._readme["tour.md"]) - {"#tour"}
        for staged, text in self._readme.items():
            self.pages[staged] = self.rewritten(text, README, staged)
        for path, text in generated.items():
            self.pages[path] = self.rewritten(text, path, path)
        for page in sorted((ROOT / "docs").rglob("*.md")):
            self.add(page.relative_to(ROOT).as_posix())

    def staged(self, path: str, target: str = "") -> str:
        """Return where a file of the repository is staged, and what the link's anchor needs."""
        if path in self._generated:
            return path
        if path == README:
            return "tour.md" if target in self._in_tour else "index.md"
        if path == "docs/index.md":
            return "pages.md"
        if path.startswith("docs/"):
            return path.removeprefix("docs/")
        if (ROOT / path).is_dir():
            return f"repository/{path}/README.md"
        return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"

    def add(self, path: str) -> None:
        """Stage a file, and those that it links to."""
        staged = self.staged(path)
        if staged in self.pages or path == README:
            return
        self.pages[staged] = ""  # so that links in a circle end
        if not path.startswith("docs/"):
            self.sources.append(path)
        self.pages[staged] = self._text(path, staged)

    def _text(self, path: str, staged: str) -> str:
        file = ROOT / path
        if file.is_dir():
            readme = f"{path}/README.md"
            if (ROOT / readme).exists():
                path, file = readme, ROOT / readme
            else:
                names = sorted(entry.name for entry in file.iterdir() if entry.is_file())
                rows = "".join(f"- [{name}]({path}/{name})\n" for name in names)
                return UNSEARCHED + self.rewritten(f"# {path}\n\n{rows}", "LIST", staged)
        text = file.read_text(encoding="utf-8")
        if path.endswith(".md"):
            return self.rewritten(indented(text), path, staged)
        fence = "`" * max(4, *(len(run) + 1 for run in re.findall("`+", text)), 4)
        language = LANGUAGES.get(file.suffix, "text")
        return f"{UNSEARCHED}# {file.name}\n\n`{path}`\n\n{fence}{language}\n{text}{fence}\n"

    def rewritten(self, text: str, path: str, staged: str) -> str:
        """Let the links of a page lead to where their targets are staged; stage these."""
        return "\n".join(
            _LINK.sub(lambda link: self._link(link, path, staged), line) if is_prose else line
            for line, is_prose in outside_fences(text)
        )

    def _link(self, link: re.Match[str], path: str, staged: str) -> str:
        target, place = link[1], link[2] or ""
        found = os.path.normpath(PurePosixPath(path).parent / target) if target else path
        if Path(found).suffix in {".svg", ".png"}:
            found = found.removeprefix("docs/")
        elif found != path or path == README:
            self.add(found)
            found = self.staged(found, place)
        else:
            found = staged
        relative = os.path.relpath(found, PurePosixPath(staged).parent)
        return f"]({place})" if found == staged and place else f"]({relative}{place})"

    def write(self, folder: Path) -> None:
        """Write the pages and images to a folder that is not there yet."""
        shutil.copytree(ROOT / "docs" / "images", folder / "images")
        for path, text in self.pages.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
