"""What our own connections are opened with."""

from __future__ import annotations

from pathlib import Path

import pytest

from durable_notify._sync.database.connection import settings

TCP = ["keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"]


@pytest.mark.parametrize("heartbeat", [3.0, 15.0, 60.0])
def test_tcp_finds_a_dead_peer_within_two_heartbeats(heartbeat: float) -> None:
    idle, interval, count, user_timeout = (settings("", "x", heartbeat)[name] for name in TCP)
    assert 0 < idle + interval * count <= 2 * heartbeat
    assert 0 < user_timeout / 1000 <= 2 * heartbeat


def test_the_dsn_goes_before() -> None:
    dsn = "host=h keepalives_idle=99 tcp_user_timeout=1 connect_timeout=3 application_name=mine"
    given = settings(dsn, "x", 15.0)
    assert not {"keepalives_idle", "tcp_user_timeout", "connect_timeout"} & given.keys()
    assert "application_name" not in given
    assert given["keepalives_interval"] == 5


def test_the_environment_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGAPPNAME", "mine")
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "3")
    given = settings("host=h", "x", 15.0)
    assert "application_name" not in given
    assert given["connect_timeout"] == "3"
    assert given["keepalives_interval"] == 5


@pytest.mark.parametrize("dsn", ["service=mine", "postgresql:///?service=mine", ""])
def test_a_service_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsn: str) -> None:
    """One that the DSN names, or the environment; nothing connects to find out what it says."""
    path = tmp_path / "services"
    path.write_text(
        "[mine]\nhost=192.0.2.1\nkeepalives_idle=7\nconnect_timeout=4\napplication_name=theirs\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    if not dsn:
        monkeypatch.setenv("PGSERVICE", "mine")
    given = settings(dsn, "x", 15.0)
    assert not {"keepalives_idle", "application_name"} & given.keys()
    assert given["connect_timeout"] == "4"
    assert given["keepalives_interval"] == 5


def test_statements_are_not_prepared_unless_nothing_stands_in_between() -> None:
    assert settings("", "x")["prepare_threshold"] is None
