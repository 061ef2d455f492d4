"""docs/events-and-metrics.md names every event, with its fields."""

from __future__ import annotations

import dataclasses
import re

from durable_notify import events
from tests.docs.test_complete import section


def test_events() -> None:
    table = section("docs/events-and-metrics.md", "Events")
    documented = re.findall(r"^\| `(\w+)` \| `(\w+)` \| `([\w, ]+)` \|", table, re.MULTILINE)
    there = [
        (name, kind.__name__, ", ".join(field.name for field in dataclasses.fields(kind)))
        for name, kind in events.EVENTS.items()
    ]
    assert sorted(documented) == sorted(there)


def test_every_event_is_listed() -> None:
    kinds = {
        value
        for value in vars(events).values()
        if isinstance(value, type) and issubclass(value, events.Event)
    }
    assert kinds - {events.Event} == set(events.EVENTS.values())
    assert {kind.__name__ for kind in kinds} | {"EVENTS", "OnEvent"} == set(events.__all__)
