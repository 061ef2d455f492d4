"""Faults take long: without --all, those that concern both halves run with one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.api import Api
from tests.support.clusters import Clusters, clusters


@pytest.fixture(params=["async", pytest.param("sync", marks=pytest.mark.slow)])
def api(request: pytest.FixtureRequest) -> Api:
    """Each half of the library in turn."""
    return Api(request.param)


@pytest.fixture(scope="module")
def servers() -> Iterator[Clusters]:
    """The servers of a module; they end with it."""
    with clusters() as them:
        yield them
