"""Build the documentation's site into .cache/docs/site; python3 tasks.py docs runs this.

--serve then serves it on this machine. The Markdown of each page stands beside its HTML. llms.txt
is an index of that, and llms-full.txt the whole.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.docs import api_reference, check, sql_reference
from tools.docs.stage import ROOT, UNSEARCHED, Stage

CONFIG = Path(__file__).with_name("zensical.toml")
FOLDER = ROOT / ".cache" / "docs"
SITE = FOLDER / "site"
ADDRESS = ("127.0.0.1", 8000)


def staged() -> Stage:
    """Return all pages: those of docs/, the generated ones, and the files they link to."""
    generated = {f"sql/{path}": text for path, text in sql_reference.pages().items()}
    generated |= {f"api/{path}": text for path, text in api_reference.pages().items()}
    stage = Stage(generated)
    for path in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        stage.add(path)
    rows = "".join(
        f"- [{path}]({stage.staged(path)})\n" for path in sorted(stage.sources, key=str.casefold)
    )
    text = "The files of the repository that these pages name."
    stage.pages["repository.md"] = f"{UNSEARCHED}# Files of the repository\n\n{text}\n\n{rows}"
    return stage


def navigation() -> Iterator[tuple[str, str]]:
    """Yield the pages of the navigation in order, each with the tab that it is under."""

    def below(entry: Any, tab: str) -> Iterator[tuple[str, str]]:
        if isinstance(entry, str):
            yield tab, entry
        elif isinstance(entry, list):
            for inner in entry:
                yield from below(inner, tab)
        else:
            for title, inner in entry.items():
                yield from below(inner, tab or title)

    for entry in tomllib.loads(CONFIG.read_text(encoding="utf-8"))["project"]["nav"]:
        yield from below(entry, "")


def unlisted(pages: set[str]) -> list[str]:
    """Return pages that the navigation lacks, and those it has in vain."""
    listed = {page for _, page in navigation()}
    shown = {page for page in pages if not page.startswith("repository/")}
    return [f"zensical.toml lacks {page} in nav" for page in sorted(shown - listed)] + [
        f"zensical.toml has {page} in nav, which is not there" for page in sorted(listed - pages)
    ]


def write_markdown(pages: dict[str, str]) -> None:
    """Write each page's Markdown beside its HTML, llms.txt and llms-full.txt."""
    texts = pages | {f"api/{path}": text for path, text in api_reference.markdown().items()}
    for path, text in texts.items():
        (SITE / path).write_text(text.removeprefix(UNSEARCHED), encoding="utf-8")
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    index = [f"# durable_notify\n\n> {about['description']}\n"]
    whole = list(index)
    tab = None
    for under, path in navigation():
        if under != tab:
            index.append(f"\n## {under}\n")
            tab = under
        title = next(line for line in texts[path].splitlines() if line.startswith("# "))
        index.append(f"- [{title.removeprefix('# ')}]({path})")
        if path != "repository.md":
            whole.append(f"<!-- {path} -->\n\n{texts[path]}")
    (SITE / "llms.txt").write_text("\n".join(index) + "\n", encoding="utf-8")
    (SITE / "llms-full.txt").write_text("\n".join(whole), encoding="utf-8")


def serve() -> None:
    """Serve the site on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(SITE))
    try:
        server = http.server.ThreadingHTTPServer(ADDRESS, handler)
    except OSError:  # the port is in use: take a free one
        server = http.server.ThreadingHTTPServer((ADDRESS[0], 0), handler)
    with server:
        print(f"http://{ADDRESS[0]}:{server.server_port}/ (Ctrl+C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main() -> None:
    """Build the site, check it, and serve it if asked to."""
    stage = staged()
    if found := unlisted(set(stage.pages)):
        sys.exit("\n".join(found))
    # Trap: the generator has a cache beside its configuration, and removes that. So not in ROOT.
    shutil.rmtree(FOLDER, ignore_errors=True)
    stage.write(FOLDER / "pages")
    shutil.copy(CONFIG, FOLDER)
    shutil.copy(CONFIG.with_name("site.css"), FOLDER / "pages")
    zensical = str(Path(sys.executable).with_name("zensical"))
    build = subprocess.run([zensical, "build", "--strict"], cwd=FOLDER, check=False)
    if build.returncode:
        sys.exit(build.returncode)
    write_markdown(stage.pages)
    if found := check.problems(SITE):
        sys.exit("\n".join(found))
    print(f"{len(stage.pages)} pages are in {SITE.relative_to(ROOT)}", flush=True)
    if "--serve" in sys.argv:
        serve()


if __name__ == "__main__":
    main()
