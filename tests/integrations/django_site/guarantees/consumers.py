"""A consumer that is made before there is a test database."""

from typing import Any

import durable_notify as dn
from durable_notify.integrations.django import Consumer

early = Consumer(group="early", until_empty=True, poll_interval=None)
seen: list[Any] = []


@early.on("early")
def see(message: dn.Message) -> None:
    seen.append(message.payload)
