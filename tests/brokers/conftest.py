"""An endpoint that receives webhooks, and the secret that signs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.receiver import SECRET, Receiver, receiving


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLE_NOTIFY_WEBHOOK_SECRET", SECRET)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one
