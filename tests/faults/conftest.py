"""Faults take long: without --all, those that concern both halves run with one."""

from __future__ import annotations

import pytest

from tests.support.api import Api


@pytest.fixture(params=["async", pytest.param("sync", marks=pytest.mark.slow)])
def api(request: pytest.FixtureRequest) -> Api:
    """Each half of the library in turn."""
    return Api(request.param)
