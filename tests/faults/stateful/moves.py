"""Which moves there are, how often each is made, and what is drawn for it.

A rule of the machine is a kind of move. Hypothesis leaves out rules in some examples, which is
good for kinds: without administrators, say, more happens among consumers.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.faults.stateful.base import GROUPS, KEYS, LEVELS, WORKERS
from tests.faults.stateful.workers import Then

Move = tuple[str, dict[str, Any]]
Strategy = st.SearchStrategy[Any]

WHO = st.integers(0, WORKERS - 1)
PICK = st.integers(0, 30)
THEN = st.sampled_from([Then.CANCEL, Then.COMMIT, Then.ROLL_BACK])
# The first topic and groups are there from the start; those that may not be are tried less often.
TOPIC = st.sampled_from(["t0", "t0", "t0", "t1"])
GROUP = st.sampled_from(["g0", "g0", "g1", "g1", "g2"])
LEVEL = st.sampled_from(LEVELS)
MOST = st.integers(1, 3)
KEY = st.sampled_from(["a", "a", *KEYS])
YES = st.booleans()
SELDOM = st.sampled_from([False, False, False, True])

OPTIONS: list[dict[str, Any]] = [
    {"order_by": "key"},
    {"order_by": "none"},
    {"order_by": "strict"},
    {"max_in_flight": 2},
    {"max_in_flight": None},
    {"max_attempts": 1},
    {"max_attempts": 20},
    {"exclusive": True},
    {"exclusive": False},
]


def moves(**table: tuple[int, dict[str, Strategy]]) -> st.SearchStrategy[Move]:
    """One of some methods of the machine, each so often, with its arguments."""
    kinds = [
        st.tuples(st.just(name), st.fixed_dictionaries(drawn))
        for name, (often, drawn) in table.items()
        for _ in range(often)
    ]
    return st.one_of(kinds)


def by(**drawn: Strategy) -> dict[str, Strategy]:
    return {"who": WHO} | drawn


PUBLISHING = moves(
    publish=(
        4,
        by(
            topic=TOPIC,
            keys=st.lists(KEY, min_size=1, max_size=4),
            later=st.sampled_from([None, None, None, "1 hour"]),
        ),
    ),
    publish_and_wait=(2, by(level=LEVEL, topic=TOPIC, key=KEY)),
)
TRANSACTIONS = moves(
    begin=(3, by(level=LEVEL)),
    end=(5, by(commit=st.sampled_from([True, True, False]))),
    crash=(1, by(terminated=YES)),
    savepoint=(1, by(back=YES)),
)
CLAIMING = moves(
    claim=(3, by(group=GROUP, both=YES, topic=TOPIC, most=MOST, then=THEN)),
    claim_all=(1, by(group=GROUP, both=YES, topic=TOPIC, then=THEN)),
    claim_and_wait=(1, by(group=GROUP, both=YES, topic=TOPIC, most=MOST, then=THEN)),
    work=(
        2,
        by(
            group=GROUP,
            topic=TOPIC,
            most=MOST,
            how=st.sampled_from(["acked", "acked", "retried", "rejected"]),
        ),
    ),
)
SETTLING = moves(
    acknowledge=(4, by(pick=PICK, few=YES, then=THEN)),
    retry=(
        3,
        by(
            pick=PICK,
            which=st.integers(0, 3),
            rest=YES,
            delay=st.sampled_from(["0", "0", "1 hour"]),
            then=THEN,
        ),
    ),
    reject=(2, by(pick=PICK, which=st.integers(0, 3), then=THEN)),
    settle_late=(1, by(pick=PICK, then=THEN)),
    extend=(1, by(then=THEN)),
    release=(1, by(pick=PICK, counted=YES, then=THEN)),
)
TIME = moves(
    lease_runs_out=(3, {"pick": PICK}),
    an_hour_passes=(2, {"expires": YES, "topic": TOPIC, "pick": PICK}),
)
MANAGING = moves(
    subscribe=(
        1,
        by(
            group=st.sampled_from(GROUPS),
            topic=TOPIC,
            start=st.sampled_from(["beginning", "now"]),
            then=THEN,
        ),
    ),
    configure=(3, by(group=GROUP, option=st.sampled_from(OPTIONS), then=THEN)),
    stop_or_continue=(
        1,
        by(group=GROUP, what=st.sampled_from(["pause", "resume", "resign_active"]), then=THEN),
    ),
    maintain=(
        2,
        {"topic": TOPIC, "pick": PICK, "on_lag": st.sampled_from([None, "block", "lose"])},
    ),
)
RETAINING = moves(
    maintain=(
        1,
        {
            "topic": st.sampled_from(["t0", "t1"]),
            "pick": PICK,
            "on_lag": st.sampled_from(["block", "block", "lose"]),
        },
    ),
)
GOING_BACK = moves(
    seek=(3, by(group=GROUP, topic=TOPIC, pick=PICK, to_now=SELDOM, then=THEN)),
    start_replay=(2, by(group=GROUP, topic=TOPIC, pick=PICK, slow=YES, then=THEN)),
    continue_replay=(3, by(pick=PICK, cancel=YES, then=THEN)),
    dead_letters=(
        2,
        by(group=GROUP, some=YES, again=st.sampled_from([True, True, False]), then=THEN),
    ),
)
