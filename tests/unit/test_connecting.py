"""DSNs as other tools write them: the error names the parameter, and quotes nothing else."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from durable_notify.dsn import check_dsn, plain, redacted_errors
from durable_notify.errors import InvalidArgument

HERE = "postgresql://app:secret@127.0.0.1:1/app"


def refused(dsn: str) -> str:
    with pytest.raises(InvalidArgument) as error:
        check_dsn(dsn)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None
    return str(error.value)


@pytest.mark.parametrize(
    ("dsn", "names"),
    [
        (f"{HERE}?schema=public", ["'schema'"]),
        (f"{HERE}?sslmode=prefer&schema=public", ["'schema'"]),
        (f"{HERE}?pgbouncer=true&connection_limit=1", ["'pgbouncer', 'connection_limit'"]),
        (f"{HERE}?currentSchema=x", ["'currentSchema'"]),
        (f"{HERE}?ssl=require", ["'ssl' (write sslmode=...)"]),
        (f"{HERE}?ssmode=require", ["'ssmode' (write sslmode=...)"]),
        (f"{HERE}?prepared_statement_cache_size=0", ["'prepared_statement_cache_size'"]),
        ("host=h database=app user=u password=secret", ["'database' (write dbname=...)"]),
        ("host=h username=u password=secret", ["'username' (write user=...)"]),
        ("host=h user=u schema=x password=secret", ["'schema'"]),
    ],
)
def test_a_parameter_of_another_tool_is_named(dsn: str, names: list[str]) -> None:
    text = refused(dsn)
    assert names[0] in text
    assert "Leave out" in text
    assert "%40" not in text, "there is nothing wrong with the password"


@pytest.mark.parametrize(
    ("dsn", "hint"),
    [
        ("jdbc:postgresql://127.0.0.1:1/app", "Leave out jdbc:"),
        ("Host=h;Port=1;Database=app;Username=u;Password=secret", "not semicolons"),
        ("127.0.0.1:1/app", "Write postgresql://"),
        ("postgresql://app:a?secret=x", "Write postgresql://"),
        ("host=h user=u password=my secret=x", "Write postgresql://"),
    ],
)
def test_other_forms(dsn: str, hint: str) -> None:
    assert hint in refused(dsn)


@pytest.mark.parametrize("dsn", [f"{HERE}?ssl=true", "postgres://h/app", "host=h", "", "service=x"])
def test_what_libpq_takes(dsn: str) -> None:
    check_dsn(dsn)


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=12))
def test_no_password_is_quoted(text: str) -> None:
    """Whatever is in it, and wherever it is taken to end."""
    password = f"Zq{text}xKw"
    for dsn in (
        f"postgresql://app:{password}@127.0.0.1:1/app?schema=x",
        f"postgresql://app:{password}",
        f"host=h user=u password={password} database=x",
    ):
        try:
            check_dsn(dsn)
        except InvalidArgument as error:
            assert "xKw" not in str(error)  # noqa: PT017
            assert "Zq" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "psycopg2", "pg8000"])
def test_a_url_of_sqlalchemys(driver: str) -> None:
    url = f"postgresql+{driver}://app:secret@127.0.0.1:1/app"
    assert plain(url) == HERE
    assert check_dsn(url) == check_dsn(HERE)
    with pytest.raises(psycopg.OperationalError) as error, redacted_errors(url) as dsn:
        psycopg.connect(dsn)
    assert "refused" in str(error.value)
    assert "Whatever driver a URL names" in str(error.value)
    assert "secret" not in str(error.value)


def test_sqlalchemy_hides_passwords() -> None:
    url = make_url(f"{HERE.replace('postgresql', 'postgresql+psycopg')}")
    with (
        pytest.raises(psycopg.OperationalError, match="hide_password=False"),
        redacted_errors(str(url)) as dsn,
    ):
        psycopg.connect(dsn)
    with pytest.raises(InvalidArgument, match="hide_password=False"):
        check_dsn(url)  # type: ignore[arg-type]
