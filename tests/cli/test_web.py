"""``durable-notify web``: who gets in, under which names, and under which path."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.cli import end, fails, run, start


@contextmanager
def served(dsn: str, *arguments: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a dashboard; its address, and what was printed before that."""
    process = start("web", "--port", "0", *arguments, dsn=dsn)
    try:
        assert process.stderr is not None
        lines = []
        while not lines or not lines[-1].startswith("dashboard: "):
            line = process.stderr.readline().decode()
            assert line, lines
            lines.append(line.strip())
        yield lines[-1].removeprefix("dashboard: "), lines[:-1]
    finally:
        process.send_signal(signal.SIGINT)
        end(process)


def test_by_default_this_machine_looks(dsn: str) -> None:
    with served(dsn) as (address, printed), httpx.Client(base_url=address) as client:
        assert address.startswith("http://127.0.0.1:")
        assert not printed
        assert "read-only" in client.get("").text
        assert client.post("actions/pause", data={"group": "g"}).status_code == 403
        assert client.get("", headers={"host": "evil.example"}).status_code == 421


def test_the_address_that_writes_is_good_for_one_browser(dsn: str) -> None:
    with served(dsn, "--write") as (address, (printed,)):
        once = printed.rpartition(" ")[2]
        assert once.startswith(f"{address}login?token=")
        with httpx.Client(base_url=address, follow_redirects=True) as client:
            assert "read-only" not in client.get(once).text
            assert client.post("actions/pause", data={"group": "g"}).status_code == 200
        assert httpx.get(once).status_code == 403
        assert "read-only" in httpx.get(address).text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_need_a_password_or_a_proxy(dsn: str, host: str) -> None:
    fails(run("web", "--host", host, dsn=dsn), 2, "lets others in", "--password-file")


def test_with_a_password_others_may_come(dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    with served(dsn, "--host", "0.0.0.0", "--allow-host", "ops.example", "--password-file",
                str(file), "--write") as (address, printed):  # fmt: skip
        local = address.replace("0.0.0.0", "127.0.0.1")
        assert not printed
        assert httpx.get(local).status_code == 401
        ann = ("ann", "correct horse")
        assert "read-only" not in httpx.get(local, auth=ann).text
        named = {"host": "ops.example"}
        assert httpx.get(local, auth=ann, headers=named).status_code == 200
        other = {"host": "other.example"}
        assert httpx.get(local, auth=ann, headers=other).status_code == 421


def test_below_a_path_of_a_proxy(dsn: str) -> None:
    """The proxy takes the path away; links have it."""
    with served(dsn, "--root-path", "/queue", "--user-header", "x-user") as (address, _):
        assert address.endswith("/queue/")
        stripped = address.removesuffix("queue/")
        answer = httpx.get(f"{stripped}topics", headers={"x-user": "bob"})
        assert answer.status_code == 200
        assert 'href="/queue/groups"' in answer.text
        assert "bob" in answer.text
        assert httpx.get(f"{stripped}topics").status_code == 403
