"""Health of a consumer: whether it is alive, and whether it is ready; without a clock."""

from __future__ import annotations

from ..events import name_of
from ..models import ConsumerState, Health

__all__ = ["HealthTracker"]

#: After so many heartbeats without a sign of life a consumer counts as stuck. One may pass until
#: it finds a dead connection, and another while it closes the others.
PATIENCE = 4


class HealthTracker:
    """Records the signs of life of a consumer's loops, and whether its claims succeed."""

    def __init__(self, heartbeat: float) -> None:
        self._patience = heartbeat * PATIENCE
        self._beat_at: float | None = None
        self._worked_at: float | None = None
        self._stopping = False
        self._fault: BaseException | None = None
        self._failing: tuple[float, str] | None = None

    def beat(self, now: float) -> None:
        """Record that the consumer's loops run."""
        self._beat_at = now

    def stop(self) -> None:
        """Record that ``stop`` was called."""
        self._stopping = True

    def end(self, error: BaseException) -> None:
        """Record the error that ended the consumer."""
        self._fault = error

    def claim_failed(self, error: BaseException, now: float) -> None:
        """Record that a claim failed."""
        since = now if self._failing is None else self._failing[0]
        self._failing = (since, name_of(error))

    def claim_succeeded(self, now: float) -> float | None:
        """Record that a claim succeeded; return for how long claims had failed, if they had."""
        self._beat_at = self._worked_at = now
        if self._failing is None:
            return None
        since, self._failing = self._failing[0], None
        return now - since

    def health(
        self,
        now: float,
        *,
        hears: bool,
        deaf: bool,
        polls: bool,
        held: int,
        group: str,
        state: ConsumerState,
        lost_at: float | None = None,
    ) -> Health:
        """Return the health of the consumer.

        Args:
            now: the time.
            hears: whether wake-ups were proven to arrive.
            deaf: whether they were proven not to arrive.
            polls: whether it polls.
            held: how many messages it holds.
            group: its group.
            state: what it does.
            lost_at: when the listening connection was lost; None: it was not.
        """
        silent = None if self._beat_at is None else max(0.0, now - self._beat_at)
        stuck = self._fault is not None or (silent is not None and silent > self._patience)
        why = []
        if self._fault is not None:
            why.append(f"it has ended: {name_of(self._fault)}")
        elif silent is None:
            why.append("it has not started")
        elif stuck:
            why.append(f"no sign of life for {silent:.0f} s")
        if self._stopping:
            why.append("it is stopping")
        if self._failing is not None:
            why.append(f"claiming fails for {now - self._failing[0]:.0f} s: {self._failing[1]}")
        if lost_at is not None and (self._worked_at is None or self._worked_at < lost_at):
            # A sleeping consumer does not claim. Only this tells it that the database is gone.
            why.append("the listening connection was lost, and nothing was claimed since")
        elif silent is not None and not (hears or polls):
            heard = "wake-ups do not arrive" if deaf else "it does not listen"
            why.append(f"{heard}, and it does not poll")
        return Health(not stuck, not why, tuple(why), group, held, hears, silent, state)
