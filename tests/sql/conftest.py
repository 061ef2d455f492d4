"""Sessions that most of these tests have."""

from __future__ import annotations

import pytest

from tests.support.observe import Listener
from tests.support.sessions import Session, Sessions


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    return sessions.session()


@pytest.fixture
def publisher(sessions: Sessions) -> Session:
    return sessions.session()


@pytest.fixture
def legacy(sessions: Sessions) -> Listener:
    """A program that listens to channel c, and knows nothing else."""
    listener = Listener(sessions)
    listener.hear("c")
    return listener
