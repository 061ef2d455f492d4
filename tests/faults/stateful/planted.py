"""Known faults for the machine to find, each one line of the SQL changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.faults.stateful.machine import GoingBack, Machine, Retaining
from tests.support.injection import cursor_by_id, plant
from tests.support.sessions import Session


class Planted(NamedTuple):
    """A fault, and where it is looked for."""

    plant: Callable[[Session], None]
    machine: type[Machine] = Machine
    seed: int = 1


def attempts_forgotten(session: Session) -> None:
    """A retry does not count."""
    plant(session, "_schedule_retry", ("t.attempt + 1,", "t.attempt,"))


def sent_back_dropped(session: Session) -> None:
    """What follows a retried message of its key is settled, and not deferred."""
    sent_back = "PERFORM durable_notify._requeue(lease, options, sent_back);"
    plant(session, "settle", (sent_back, ""))


def cancel_takes_what_is_owed(session: Session) -> None:
    """The end of a replay takes all that waits."""
    plant(session, "cancel_replay", (" AND d.replay_job = ended.id", ""))


def redriven_without_key(session: Session) -> None:
    """A redriven message does not hold back its key."""
    key = "durable_notify._ordering_key(g.order_by, t.key)"
    plant(session, "redrive", (key, "NULL"))


def settlements_ignored(session: Session) -> None:
    """What was acknowledged of a lease is delivered again once it has run out."""
    plant(session, "_reclaim_leases", ("WHERE NOT EXISTS (", "WHERE true OR NOT EXISTS ("))


def seek_within_a_window(session: Session) -> None:
    """A seek forgets what was read of the window that is open."""
    plant(session, "seek", ("target.p := LEAST(pos.p, target_id);", ""))


def retry_before_the_outbox(session: Session) -> None:
    """What is owed twice after a seek comes with what waits, and not in the order of the outbox."""
    as_waiting = """read.ids := ARRAY(SELECT m.id FROM pg_catalog.unnest(read.ids) AS m (id) WHERE m.id <> ALL (waited));
        read_attempts := pg_catalog.array_fill(1, ARRAY[pg_catalog.cardinality(read.ids)]);"""
    both = "IF waited && read.ids THEN"
    plant(session, "_next_batch", (both, f"{as_waiting} {both}"))


def keys_left(session: Session) -> None:
    """A new order does not reach what waits."""
    plant(session, "configure", ("PERFORM durable_notify._apply_new_order(new);", ""))


def waiting_removed(session: Session) -> None:
    """Retention does not look at what waits."""
    place = (
        "WHERE d.subscription_id = _settled_watermark.subscription_id ORDER BY d.message_id LIMIT 1"
    )
    plant(session, "_settled_watermark", (place, place.replace("WHERE", "WHERE false AND")))


def loss_not_recorded(session: Session) -> None:
    """What a group loses is nowhere recorded."""
    record = "lost.messages + put_off.messages > 0"
    plant(session, "_record_loss", (f"IF {record} THEN", f"IF false AND {record} THEN"))


def expired_without_a_trace(session: Session) -> None:
    """What expired is dropped where it should be a dead letter."""
    asked = "options.on_expiry = 'dead_letter'"
    plant(session, "_triage", (f"IF {asked} THEN", f"IF false AND {asked} THEN"))


def lease_not_known(session: Session) -> None:
    """No position knows of a new lease: it is never taken over, and holds back no key."""
    plant(session, "claim", ("seen.live || g.token", "seen.live"))
    plant(
        session, "_claim_in_full", ("ELSE lease_tokens || new_token END", "ELSE lease_tokens END")
    )


def no_fence(session: Session) -> None:
    """A settle under a token that was superseded succeeds."""
    refuse = "PERFORM durable_notify._raise_lease_lost(token);"
    plant(session, "settle", (refuse, "RETURN sent_back;"))


def keys_never_busy(session: Session) -> None:
    """A key goes to a second consumer while the first handles it."""
    plant(session, "_keys_in_flight", ("l.token = ANY (lease_tokens)", "false"))


def limit_of_one_claim(session: Session) -> None:
    """max_in_flight counts what is asked for, and not what is held."""
    plant(session, "_delivery_quota", ("options.max_in_flight - ", "options.max_in_flight - 0 * "))


PLANTED = [
    Planted(cursor_by_id),
    Planted(attempts_forgotten),
    Planted(sent_back_dropped, seed=3),
    Planted(cancel_takes_what_is_owed, GoingBack, seed=3),
    Planted(redriven_without_key, GoingBack, seed=3),
    Planted(settlements_ignored),
    Planted(seek_within_a_window, GoingBack, seed=2),
    Planted(retry_before_the_outbox, GoingBack, seed=3),
    Planted(keys_left, seed=2),
    Planted(waiting_removed, Retaining),
    Planted(loss_not_recorded, Retaining),
    Planted(expired_without_a_trace),
    Planted(lease_not_known),
    Planted(no_fence),
    Planted(keys_never_busy),
    Planted(limit_of_one_claim),
]
