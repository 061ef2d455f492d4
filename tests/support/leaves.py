"""A log laid out in leaves of a test's own width."""

from __future__ import annotations

from tests.support.schedule import Session


def lay_out(owner: Session, width: int, ahead: int = 1) -> None:
    """Make the leaves of an empty log anew."""
    for (leaf,) in owner.run("SELECT leaf::text FROM durable_notify.partitions()"):
        owner.run(f"DROP TABLE {leaf}")
    owner.run(
        "INSERT INTO durable_notify.partition_settings (min_width, ahead) VALUES (%s, %s)",
        width,
        ahead,
    )
    make(owner)


def make(session: Session) -> int:
    """Make leaves until no more are wanted; the number of steps."""
    steps = 0
    while session.value("SELECT durable_notify.create_partitions()"):
        steps += 1
    return steps
