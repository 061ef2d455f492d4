"""The SQL reference: a page a subject, made of migrations/schema, where functions are documented.

What a function does is the comment in its body; what it returns in words stands in docs/sql.md.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from tools.docs.stage import ROOT

SCHEMA = ROOT / "migrations" / "schema"
INTRODUCTION = """\
Every function of the schema `durable_notify` that programs call, by subject. Call them with named
arguments. [The database half](../docs/sql.md) shows how to use them, and has
[the errors](../docs/sql.md#errors) and [the outbox](../docs/sql.md#the-outbox).
"""
SUBJECT_OF = {"notify_policy": "wakeups", "mirror_of": "bridge"}
"""Functions in inlined/, which other functions rewrite."""
_FUNCTION = re.compile(
    r"^CREATE (?P<kind>FUNCTION|PROCEDURE) durable_notify\.(?P<name>[a-z]\w*)(?P<rest>\(.*?)\n?\s*"
    r"LANGUAGE.*?AS (?P<quote>\$\w*\$)\n(?P<body>.*?)(?P=quote)",
    re.MULTILINE | re.DOTALL,
)
_GRANTABLE = re.compile(r"_grantable\('(\w+)',\s*'\{([\w,]*)\}'")
_COMMENT = re.compile(r"(?:^ +--[^\n]*\n)+", re.MULTILINE)
_ROW = re.compile(r"^\| `(\w+)\([\w, ]*\)` \| .*? \| (?:(.*) )?\|$", re.MULTILINE)
ONE_LINE = 60
WIDTH = 100
"""How long the lines of a comment are."""
#: What is code in a comment: a call, a name with an underscore, and what stands in single quotes.
_CODE = re.compile(r"(?<![\w`'])(_?[a-z]\w*\([\w, .]*\)|_?\w+_\w*|'[^'\n]*')(?![\w`'])")


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of the schema that programs call."""

    name: str
    kind: str
    signature: str
    comment: str
    grants: tuple[str, ...]
    path: str

    @property
    def subject(self) -> str:
        """The folder that the function belongs to."""
        return SUBJECT_OF.get(self.name, Path(self.path).parent.name)


def laid_out(signature: str) -> str:
    """Put each argument and each column of a signature on a line, unless all fits on one."""
    text = " ".join(signature.split()).replace("( ", "(").replace(" )", ")")
    if len(text) <= ONE_LINE:
        return text
    lists = re.compile(r"\(((?:[^()]|\([^()]*\))+)\)")
    return lists.sub(lambda found: "(\n  " + re.sub(r", (?=\w)", ",\n  ", found[1]) + "\n)", text)


def subjects() -> dict[str, str]:
    """Return the folders of functions, each with what install.sql says of it, in its order."""
    text = (SCHEMA / "install.sql").read_text(encoding="utf-8")
    return {
        folder: said
        for said, folder in re.findall(r"^-- (.+)\n\\ir (\w+)/", text, re.MULTILINE)
        if folder not in {"tables", "inlined"}
    }


def functions() -> list[Function]:
    """Read the public functions, in the order of the table of contents."""
    order = re.findall(r"^\\ir (\S+)", (SCHEMA / "install.sql").read_text("utf-8"), re.MULTILINE)
    texts = {name: (SCHEMA / name).read_text(encoding="utf-8") for name in order}
    grants = {
        name: tuple(actions.split(","))
        for text in texts.values()
        for name, actions in _GRANTABLE.findall(text)
    }
    found = []
    for path, text in texts.items():
        for match in _FUNCTION.finditer(text):
            comment = _COMMENT.search(match["body"])
            assert comment, f"{path}: {match['name']}() is not documented in its body"  # noqa: S101
            name = match["name"]
            signature = laid_out(f"{name}{match['rest']}")
            found.append(
                Function(
                    name, match["kind"].lower(), signature, comment[0], grants.get(name, ()),
                    f"migrations/schema/{path}",
                )
            )  # fmt: skip
    return found


def blocks_of(comment: str) -> list[str]:
    """Split a comment where it leaves a line empty, or ends one early; a list is indented in it."""
    blocks = [""]
    before = ""
    for line in comment.splitlines():
        text = line.strip().removeprefix("--").removeprefix(" ")
        is_short = len(before) + len(text.partition(" ")[0]) < WIDTH
        is_item = text.startswith("  ")
        if not text or text.startswith("Trap:") or is_item or (before.endswith(".") and is_short):
            blocks.append("- " if is_item else "")
        blocks[-1] += f" {text.strip()}"
        before = line
    return [block.strip() for block in blocks if block.strip()]


def prose(comment: str, signature: str = "") -> str:
    """Return a comment as Markdown: names as code, and a list of the arguments it explains."""
    names = set(re.findall(r"\w+", signature))

    def item(found: re.Match[str]) -> str:
        mine = re.split(r", | and ", found[1])
        if names.isdisjoint(mine):
            return found[0]
        return "\n- " + " and ".join(f"`{name}`" for name in mine) + ": "

    result = ""
    for block in blocks_of(comment):
        text = re.sub(r"<(?=\w)|(?<![\w`])\*(?![\w`])", lambda found: "\\" + found[0], block)
        if text.startswith("- "):
            text = re.sub(r"^-  ?(\w+): +", r"- `\1`: ", text)
        else:
            text = re.sub(r"(?:^|(?<=\.) )(\w+(?:(?:, | and )\w+)*): ", item, text).strip()
        if text.startswith("- "):
            text = re.sub(r"; (\w+): ", item, text)
        text = re.sub(r"(?m)^(?!- )(.+)\n- ", r"\1\n\n- ", text)
        text = _CODE.sub(lambda found: f"`{found[1]}`", text).replace("Trap:", "**Trap:**")
        continues = text.startswith("- ") and result.rpartition("\n")[2].startswith("- ")
        result += ("\n" if continues else "\n\n") + text
    return result.strip()


def entry(function: Function, returns: str) -> Iterator[str]:
    """Write what the reference says of a function."""
    yield f"## {function.name}\n"
    if function.kind == "procedure":
        yield f"```sql\nCALL durable_notify.{function.signature}\n```\n"
    else:
        yield f"```sql\ndurable_notify.{function.signature}\n```\n"
    yield prose(function.comment, function.signature) + "\n"
    if returns:
        yield f"**Returns:** {returns}\n"
    needed = " or ".join(f"`{action}`" for action in function.grants)
    who = f"roles with {needed}, and the owner" if needed else "the owner of the schema"
    yield f"**May call it:** {who}. See [roles](../docs/roles.md).\n"
    yield f"**Source:** [{function.path}](../{function.path})\n"


def pages() -> dict[str, str]:
    """Return the pages, by name; their links are relative to a folder of the repository's root."""
    returns = dict(_ROW.findall((ROOT / "docs" / "sql.md").read_text(encoding="utf-8")))
    returns = {
        name: re.sub(r"\]\((?=[\w-]+\.md)", "](../docs/", text) for name, text in returns.items()
    }
    returns = {name: re.sub(r"\]\(#", "](../docs/sql.md#", text) for name, text in returns.items()}
    there = functions()
    result = {}
    index = [
        "# SQL reference\n",
        INTRODUCTION,
    ]
    for folder, said in subjects().items():
        title, _, about = said.partition(": ")
        mine = sorted((one for one in there if one.subject == folder), key=lambda one: one.name)
        text = [f"# {title}\n", f"{about[:1].upper()}{about[1:]}.\n" if about else ""]
        for function in mine:
            text += entry(function, returns.get(function.name, ""))
        result[f"{folder}.md"] = "\n".join(text)
        links = ", ".join(f"[`{one.name}`]({folder}.md#{one.name})" for one in mine)
        index.append(f"- [{title}]({folder}.md): {links}")
    result["index.md"] = "\n".join(index) + "\n"
    return result
