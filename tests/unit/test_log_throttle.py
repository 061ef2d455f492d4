"""How often the same trouble is logged."""

from __future__ import annotations

import logging

import psycopg

from durable_notify._core.log_throttle import LogThrottle


def test_a_trouble_is_logged_once_and_then_once_a_minute() -> None:
    throttle = LogThrottle()
    said = [
        now
        for now in range(0, 200, 5)
        if throttle.level("claiming", OSError(f"at {now}"), now) == logging.WARNING
    ]
    assert said == [0, 60, 120, 180]


def test_another_trouble_is_logged_at_once() -> None:
    throttle = LogThrottle()
    for about, error in (
        ("claiming", psycopg.errors.DiskFull("full")),
        ("claiming", psycopg.OperationalError("refused")),
        ("claiming", psycopg.errors.QueryCanceled("cancelled")),
        ("settling", psycopg.errors.QueryCanceled("cancelled")),
        ("crowded", None),
    ):
        assert throttle.level(about, error, 1.0) == logging.WARNING
        assert throttle.level(about, error, 2.0) == logging.DEBUG
