"""What a consumer knows of a lease it holds."""

from __future__ import annotations

import pytest

from durable_notify._core.leases import Ack, Lease, Reject, Retry, already_settled
from durable_notify._core.sanitize import to_storable
from durable_notify.errors import AlreadySettled, LeaseLost


@pytest.fixture
def lease() -> Lease:
    return Lease(7, dict.fromkeys([1, 2, 3]), 0.0)


def test_outcomes_are_collected_and_taken_together(lease: Lease) -> None:
    collection = lease.record(2, Ack())
    assert lease.record(1, Retry(5.0, "why")) is collection
    assert lease.record(3, Reject("no")) is collection
    taken = lease.take()
    assert taken is collection
    assert taken.acked == [2]
    assert taken.retried == [(1, Retry(5.0, "why"))]
    assert taken.rejected == [(3, Reject("no"))]
    assert lease.take() is None


def test_a_lease_acknowledged_as_a_whole_goes_in_the_order_it_came(lease: Lease) -> None:
    for message_id in (3, 1, 2):
        lease.record(message_id, Ack())
    taken = lease.take()
    assert taken is not None
    assert taken.acked == [1, 2, 3]


def test_each_message_once(lease: Lease) -> None:
    lease.record(1, Ack())
    for outcome in (Ack(), Retry(1.0), Reject("no")):
        with pytest.raises(AlreadySettled, match="message 1"):
            lease.record(1, outcome)
    with pytest.raises(AlreadySettled):
        lease.finish(1)


def test_what_could_not_be_sent_goes_first_and_as_it_was(lease: Lease) -> None:
    lease.record(1, Ack())
    first = lease.take()
    assert first is not None
    lease.record(2, Ack())
    lease.put_back(first)
    assert lease.take() is first
    second = lease.take()
    assert second is not None
    assert second.acked == [2]


def test_held_counts_what_is_not_known_to_be_settled(lease: Lease) -> None:
    assert lease.held == 3
    lease.record(1, Ack())
    assert lease.held == 3
    taken = lease.take()
    assert taken is not None
    lease.put_back(taken)
    assert lease.held == 3
    lease.take()
    assert lease.held == 2


def test_settled_when_all_is_sent(lease: Lease) -> None:
    for message_id in (1, 2, 3):
        assert not lease.settled
        lease.record(message_id, Ack())
    assert not lease.settled
    lease.take()
    assert lease.settled


def test_finished_elsewhere(lease: Lease) -> None:
    for message_id in (1, 2, 3):
        lease.in_transaction[message_id] = None
        lease.finish(message_id)
    assert lease.settled
    assert lease.unconfirmed
    assert lease.take() is None


def test_lost(lease: Lease) -> None:
    waiting = lease.record(1, Ack())
    lease.lose()
    assert waiting.flushed
    assert isinstance(waiting.error, LeaseLost)
    assert lease.take() is None
    with pytest.raises(LeaseLost, match="lease 7"):
        lease.record(2, Ack())
    with pytest.raises(LeaseLost):
        lease.check(3)


def test_presumed_settled(lease: Lease) -> None:
    assert not lease.presumed_settled
    lease.record(1, Ack())
    lease.in_transaction |= {2: None, 3: None}
    assert lease.presumed_settled


def test_outcomes_one_by_one(lease: Lease) -> None:
    lease.record(1, Ack())
    lease.record(2, Retry(1.0))
    together = lease.record(3, Reject("no"))
    parts = dict(together.pop(lease.ids.index) for _ in range(3))
    assert len(together) == 0
    assert {message_id: part.ids() for message_id, part in parts.items()} == {
        1: {1},
        2: {2},
        3: {3},
    }
    for part in parts.values():
        together.add(part)
    assert together.ids() == {1, 2, 3}
    assert (together.acked, together.retried, together.rejected) == (
        [1], [(2, Retry(1.0))], [(3, Reject("no"))],
    )  # fmt: skip


def test_what_became_of_each(lease: Lease) -> None:
    together = lease.record(1, Ack())
    lease.record(2, Ack())
    together.refused[1] = already_settled(1)
    assert isinstance(together.error_of(1), AlreadySettled)
    assert together.error_of(2) is None
    together.error = LeaseLost()
    assert isinstance(together.error_of(2), LeaseLost)


def test_a_lease_with_a_message_settled_in_a_transaction_is_not_simply_over(
    lease: Lease,
) -> None:
    """However the message is settled after all, the lease may be left standing."""
    lease.in_transaction[2] = None
    lease.record(1, Ack())
    assert not lease.unconfirmed
    lease.record(2, Retry(1.0))
    assert lease.unconfirmed


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("as it is ü😀\n\x01", "as it is ü😀\n\x01"),
        ("a\x00b", "a\ufffdb"),
        ("a\ud800b", "a?b"),
        ("", ""),
    ],
)
def test_text_that_postgresql_can_store(text: str, stored: str) -> None:
    assert to_storable(text) == stored


def test_what_may_have_arrived_outlives_the_lease(lease: Lease) -> None:
    """Where the connection broke while it was sent, the database is asked what became of it."""
    lease.record(1, Ack())
    sent = lease.take()
    assert sent is not None
    lease.record(2, Ack())
    waits = lease.pending
    sent.uncertain = True
    lease.put_back(sent)
    lease.lose()
    assert not sent.flushed
    assert lease.uncertain
    assert isinstance(waits.error_of(2), LeaseLost)
    assert lease.take() is sent
    assert lease.take() is None


def test_what_is_durable_frees_its_key() -> None:
    """Also what was sent back with an earlier one; not what is still open, or has no key."""
    freed: list[int] = []
    a, b = ("t", "a"), ("t", "b")
    keys = {1: a, 2: b, 3: a, 4: None, 5: b}
    lease = Lease(7, keys, 0.0, lambda _key, delivery: freed.append(delivery[1]))
    lease.record(2, Ack())
    lease.mark_durable([1, 2, 4])
    assert freed == [2]
    lease.record(1, Retry())
    lease.mark_durable([1])
    assert freed == [2, 1, 3]


def test_what_was_withdrawn_or_settled_is_refused(lease: Lease) -> None:
    lease.withdraw(2, "its handler was given up")
    lease.record(1, Ack())
    for message_id in (1, 2):
        with pytest.raises(AlreadySettled):
            lease.record(message_id, Ack())
    lease.record(2, Retry(), withdrawn=True)
    lease.record(3, Ack())
