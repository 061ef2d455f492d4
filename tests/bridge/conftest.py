"""Fixtures for captures."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["sync", "async"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def marks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a capture make a mark every 10 ms: what it gets wrong there shows at once."""
    for half in ("_sync", "_async"):
        monkeypatch.setattr(f"durable_notify.{half}.capture.BUSY_BEAT", 0.01)
