"""How a consumer may be given its handler."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["run", "run_batches"])
def way(request: pytest.FixtureRequest) -> str:
    """The method that is given the handler."""
    return str(request.param)
