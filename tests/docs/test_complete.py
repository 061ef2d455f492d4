"""The documentation lists all that exists, and nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import re

import psycopg

import durable_notify as dn
import pytest_durable_notify as plugin
from durable_notify import errors, testing
from durable_notify._async.capture import LOCKS
from durable_notify._core import sqlstate as translate
from durable_notify.options import ConsumerOptions
from tests.support.postgres import CHECKOUT


def page(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    """A section of a page, up to the next heading."""
    _, _, rest = page(name).partition(f"\n## {heading}\n")
    assert rest, f"{name} has no section {heading}"
    return rest.partition("\n## ")[0]


def first_column(table: str) -> set[str]:
    """The first thing in code type in each row of a table."""
    return set(re.findall(r"^\| `(\w+)", table, re.MULTILINE))


def test_options_of_a_consumer() -> None:
    options = {field.name: field for field in dataclasses.fields(ConsumerOptions)}
    documented = section("docs/consuming.md", "Options")
    assert first_column(documented) == {*options, "listen_dsn"}
    for name, field in options.items():
        if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
            assert f"| `{name}` | {field.default:g} |" in documented


def test_attributes_of_a_message() -> None:
    public = {name for name in dn.Message.__annotations__ if not name.startswith("_")}
    documented = first_column(section("docs/consuming.md", "What a message has"))
    assert documented == public | {"is_settled"}


def test_the_testing_kit() -> None:
    fixtures = {
        name for name, value in vars(plugin).items() if "FixtureFunction" in repr(type(value))
    }
    assert fixtures
    assert first_column(section("docs/testing.md", "Databases")) == fixtures
    functions = {n for n in testing.__all__ if n.islower() and not n.endswith("_async")}
    assert {name for name in functions if name not in page("docs/testing.md")} == set()


def test_classes_of_advisory_locks() -> None:
    """Each is listed, and for one thing: a session that captures has armed nothing."""
    pattern = re.compile(r"\b16850243\d\d\b")
    documented = re.findall(r"(?m)^\| (\d+) \(`dnt\w`\) \|", page("docs/how-it-works.md"))
    sources = [
        *CHECKOUT.glob("migrations/schema/**/*.sql"),
        CHECKOUT / "durable_notify/_core/sql.py",
    ]
    taken = {
        found for path in sources for found in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert str(LOCKS) not in taken
    assert sorted(taken | {str(LOCKS)}) == documented


def test_errors() -> None:
    assert first_column(page("docs/errors.md")) == set(errors.__all__)


def test_both_trees_of_errors_are_the_classes() -> None:
    children: dict[str, set[str]] = {}
    for name in errors.__all__:
        for base in getattr(errors, name).__bases__:
            children.setdefault(base.__name__, set()).add(name)
    for text in (errors.__doc__ or "", page("docs/errors.md")):
        drawn: dict[str, set[str]] = {}
        above: list[str] = []
        for indent, name, other in re.findall(
            r"(?m)^ *([│├└─ ]*── )?(\w+)(?: \((\w+)\))?(?: .*)?$", text
        ):
            if name != "DurableNotifyError" and not indent:
                continue
            above[len(indent) // 4 :] = [name]
            for base in (*above[-2:-1], *filter(None, [other])):
                drawn.setdefault(base, set()).add(name)
        drawn["Exception"] = {"DurableNotifyError"}
        assert drawn == children


def test_sqlstates() -> None:
    documented = first_column(section("docs/sql.md", "Errors"))
    assert documented - {"55P03", "23514", "42501"} == set(translate._BY_SQLSTATE)


def test_functions(conn: psycopg.Connection) -> None:
    query = """
        SELECT proname, (
               SELECT array_agg(name) FROM unnest(proargnames, proargmodes) AS a (name, mode)
                WHERE mode IS NULL OR mode = 'i')
          FROM pg_proc
         WHERE pronamespace = 'durable_notify'::regnamespace AND proname NOT LIKE '\\_%'
    """
    there = {name: arguments or [] for name, arguments in conn.execute(query)}
    text = section("docs/sql.md", "Functions")
    documented = {
        name: [argument for argument in arguments.split(", ") if argument]
        for name, arguments in re.findall(r"^\| `(\w+)\(([\w, ]*)\)`", text, re.MULTILINE)
    }
    assert set(documented) == set(there)
    assert documented == {name: there[name] for name in documented}


def test_columns_of_the_outbox(conn: psycopg.Connection) -> None:
    columns = conn.execute("SELECT * FROM durable_notify.outbox").description
    assert columns is not None
    text = section("docs/sql.md", "The outbox")
    assert re.findall(r"^\| `(\w+)`", text, re.MULTILINE) == [column.name for column in columns]


def test_tables(conn: psycopg.Connection) -> None:
    query = """
        SELECT relname FROM pg_class
         WHERE relnamespace = 'durable_notify'::regnamespace AND relkind = 'r' AND NOT relispartition
    """
    text = section("docs/sql.md", "The outbox").partition("The other tables")[2]
    there = {name for (name,) in conn.execute(query)} - {"outbox", "schema_version"}
    assert there <= set(re.findall(r"`(\w+)`", text))


def test_tasks() -> None:
    spec = importlib.util.spec_from_file_location("tasks", CHECKOUT / "tasks.py")
    assert spec is not None
    assert spec.loader is not None
    tasks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tasks)
    documented = first_column(section("CONTRIBUTING.md", "Tasks"))
    assert documented == set(tasks.TASKS)


def test_every_guarantee_names_a_test_that_there_is() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page("docs/guarantees.md"))
    assert len(named) > 40
    for path, name in named:
        assert (CHECKOUT / path).is_file(), path
        assert not name or re.search(rf"^(async )?def {name}\(", page(path), re.MULTILINE), name
