"""When schedules are due: time zones, both changes of the clocks, missed ticks, and a floor for now."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import durable_notify as dn
from durable_notify.schedules import ScheduleInfo, Ticks

BERLIN = "Europe/Berlin"
#: The nights in which clocks are set forward (02:00 is 03:00), and back (03:00 is 02:00).
SPRING = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 22, 0, tzinfo=UTC)


def cron(text: str, time_zone: str = BERLIN) -> Ticks:
    return Ticks(text, None, time_zone)


def following(ticks: Ticks, start: datetime, number: int) -> list[str]:
    found: list[str] = []
    while len(found) < number:
        tick = ticks.next(start)
        assert tick is not None
        start = tick
        found.append(f"{tick.astimezone(UTC):%d %H:%M}")
    return found


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        # 02:30 does not exist: at 03:00, which is 01:00 UTC. The next day as ever.
        ("30 2 * * *", SPRING, ["29 01:00", "30 00:30", "31 00:30"]),
        # 02:30 exists twice: the first.
        ("30 2 * * *", AUTUMN, ["25 00:30", "26 01:30"]),
        # What is before and after the change is where it should be.
        ("30 1 * * *", SPRING, ["29 00:30", "29 23:30"]),
        ("30 3 * * *", SPRING, ["29 01:30", "30 01:30"]),
        ("30 3 * * *", AUTUMN, ["25 02:30", "26 02:30"]),
        # Real time: each hour once, none left out, none twice.
        ("0 * * * *", SPRING, ["28 23:00", "29 00:00", "29 01:00", "29 02:00"]),
        ("0 * * * *", AUTUMN, ["24 23:00", "25 00:00", "25 01:00", "25 02:00", "25 03:00"]),
        ("*/30 * * * *", AUTUMN, ["24 22:30", "24 23:00", "24 23:30", "25 00:00", "25 00:30", "25 01:00", "25 01:30"]),
    ],
)  # fmt: skip
def test_changes_of_the_clocks(text: str, start: datetime, expected: list[str]) -> None:
    assert following(cron(text), start, len(expected)) == expected
    # Backwards it finds the same ones.
    first, *_, last = (
        start.replace(day=1)
        + timedelta(days=int(tick[:2]) - 1, hours=int(tick[3:5]) - 22, minutes=int(tick[6:]))
        for tick in expected
    )
    newest = cron(text).newest(first, last, len(expected))
    assert [f"{tick:%d %H:%M}" for tick in newest] == expected


@given(
    text=st.sampled_from(["30 2 * * *", "0 * * * *", "*/7 2,3 * * *", "15 3 * * MON", "0 0 1 * *"]),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"]),
    start=st.integers(0, 730 * 1440).map(lambda minutes: SPRING - timedelta(minutes=minutes)),
    most=st.integers(1, 5),
)  # fmt: skip
def test_forward_and_backward_agree(text: str, zone: str, start: datetime, most: int) -> None:
    ticks = cron(text, zone)
    every = [ticks.next(start)]
    for _ in range(6):
        assert every[-1] is not None
        every.append(ticks.next(every[-1]))
    found: list[Any] = every
    assert found == sorted(set(found))
    assert found[0] > start
    upto = found[-1] + timedelta(seconds=20)
    assert ticks.newest(found[0], upto, most) == found[-most:]
    assert ticks.newest(found[0], upto, 100) == found


def test_intervals() -> None:
    ticks = Ticks(None, 90, "UTC")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    now = first + timedelta(seconds=200)
    assert ticks.newest(first, now, 10) == [
        first,
        first + timedelta(seconds=90),
        first + timedelta(seconds=180),
    ]
    assert ticks.newest(first, now, 1) == [first + timedelta(seconds=180)]
    assert ticks.next(now, first) == first + timedelta(seconds=270)
    assert ticks.next(first + timedelta(seconds=180), first) == first + timedelta(seconds=270)
    assert ticks.next(first - timedelta(days=1), first) == first + timedelta(seconds=90)
    assert ticks.next(now) == now + timedelta(seconds=90)


NIGHT = datetime(2026, 6, 1, 3, 0, tzinfo=UTC)
INFO = ScheduleInfo(
    "n", "t", None, None, {}, "0 3 * * *", None, "UTC", "once", 100, None, NIGHT, None, None, None, 0.0
)  # fmt: skip


@pytest.mark.parametrize(
    ("missed", "most", "late", "expected"),
    [
        ("once", 100, 0, [1]), ("skip", 100, 0, [1]), ("all", 100, 0, [1]),
        ("once", 100, 86_400 * 3 + 30, [4]), ("skip", 100, 86_400 * 3 + 30, [4]),
        ("skip", 100, 86_400 * 3 + 90, []), ("once", 100, 86_400 * 3 + 90, [4]),
        ("all", 100, 86_400 * 3 + 90, [1, 2, 3, 4]), ("all", 2, 86_400 * 3 + 90, [3, 4]),
        ("once", 1, -1, None),
    ],
)  # fmt: skip
def test_missed_ticks(missed: str, most: int, late: float, expected: list[int] | None) -> None:
    info = dataclasses.replace(INFO, missed=missed, max_missed=most, seconds=-late)
    ticks, next_at = info.due()
    if expected is None:
        assert (ticks, next_at) == ([], NIGHT)
        return
    assert [tick.day for tick in ticks] == expected
    assert next_at is not None
    assert next_at > NIGHT + timedelta(seconds=late)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cron": "61 * * * *"}, "cannot be read"),
        ({"cron": "0 3 * * *", "time_zone": "Mars/Olympus"}, "no time zone"),
        ({"cron": "0 3 * * *", "every": 60}, "either cron or every"),
        ({}, "either cron or every"),
        ({"every": 0.5}, "1 second or more"),
        ({"every": 60, "missed": "never"}, "missed is"),
        ({"every": 60, "missed": "all", "max_missed": 0}, "1 to 1000"),
        ({"every": 60, "payload": b"x"}, "not bytes"),
        ({"every": 60, "topic": "t.*"}, "topic"),
    ],
)
def test_what_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(dn.InvalidArgument, match=said):
        dn.Schedule(**{"name": "n", "topic": "t", **options})


def test_a_library_that_stands_still_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a scheduler would publish the same tick for ever."""
    ticks = cron("0 3 * * *")
    monkeypatch.setattr(ticks, "_iterate", lambda start: iter([start]))
    with pytest.raises(dn.InvalidArgument, match="does not advance"):
        ticks.next(NIGHT)


def test_cron_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cronsim", None)
    assert dn.Schedule(name="n", topic="t", every=60)
    with pytest.raises(dn.InvalidArgument, match=r"durable-notify\[cron\]"):
        dn.Schedule(name="n", topic="t", cron="0 3 * * *")
