"""Values that a hostile, or merely unlucky, user would give; and how often to try them.

A failure prints its example and a line that repeats it. DURABLE_NOTIFY_SECONDS (10 unless given)
makes a run that many times longer, in tenths; DURABLE_NOTIFY_SEED repeats one's decisions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st

from tests.support.names import NASTY_NAMES

TIMES = float(os.environ.get("DURABLE_NOTIFY_SECONDS", "10")) / 10
SEED = os.environ.get("DURABLE_NOTIFY_SEED")


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Try so many examples, new ones each time."""

    def decorate(test: Any) -> Any:
        test = settings(
            max_examples=max(1, int(examples * TIMES)), deadline=None, database=None,
            derandomize=False, print_blob=True, suppress_health_check=list(HealthCheck),
        )(test)  # fmt: skip
        return test if SEED is None else seed(SEED)(test)

    return decorate


SHARP = "'\"%{}\\$;:[]()<>*?#|&^~`!=+-_/.,@ \t\n\r\x00\x01\x07\x08\x1b\x7f\x85\x9b\xa0"
ODD = "\u0130\u0131\u200b\u200d\u200e\u2028\u2029\u202e\u2066\u3000\ufeff\ufffd\uffff\ud800\udfff"
BITS = [
    "'; DROP TABLE canary; --", "$$", "$function$", "%s", "%(a)s", "%L", "{}", "{0}", "\\", "\\'",
    "\\x00", "\\u0000", "E'", '"', '""', "::text", "NULL", "[red]", "[/]", "\x1b[31m", "\x1b]0;x\x07",
    "durable_notify", "durable_notify:", "durable_notify?", "durable_notify#", "SELECT ", "END",
    " WHEN ", "a.*", ">", ".", "..", "\N{CYRILLIC SMALL LETTER O}rders", "orders", "é", "e\u0301",
]  # fmt: skip
LOOK_ALIKES = [
    "", "durable_notify", "durable_notify:t", "durable_notify:", "durable_notify?" + "0" * 32,
    "durable_notify#" + "0" * 32, "!", "*", "0", "-1", "1e999", "t", "T", "t ", "NaN", "null", "true",
]  # fmt: skip

character = st.one_of(st.sampled_from(SHARP), st.sampled_from(ODD), st.characters())
#: Any text, surrogates and NUL included.
texts = st.one_of(
    st.lists(st.one_of(character, st.sampled_from(BITS)), max_size=12).map("".join),
    st.text(st.characters(), max_size=20),
    st.sampled_from(NASTY_NAMES),
    st.sampled_from(LOOK_ALIKES),
    st.tuples(character, st.integers(1, 5000)).map(lambda pair: pair[0] * pair[1]),
)
#: Text of which many are good names: no control characters, no spaces.
names = st.lists(
    st.one_of(
        st.sampled_from("'\"%{}\\$;:[]()?#|&^~`!=+-_/.,@a1"),
        st.sampled_from(["é", "注", "😀", "\u200b", "\u202e", "\ufeff", "\ufffd"]),
        st.sampled_from([bit for bit in BITS if not set(bit) & set("*> \x00\x07\x1b")]),
    ),
    min_size=1,
    max_size=10,
).map("".join)
any_name = st.one_of(names, texts)
#: What is no text at all.
no_text = st.one_of(st.integers(), st.floats(), st.binary(max_size=5), st.none(), st.just(["t"]))

json_text = st.one_of(texts, names)
payloads = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), json_text,
        st.sampled_from([10**400, -(10**25), 1e308, 5e-324, 0.1 + 0.2]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(json_text, inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
contents = st.one_of(payloads, st.binary(max_size=40))
headers = st.one_of(st.none(), st.dictionaries(json_text, payloads, max_size=3))


def sendable(text: str) -> bool:
    """Whether PostgreSQL can be sent a text at all."""
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


def same(one: Any, other: Any) -> bool:
    """Whether two payloads are the same: 1.0 is 1 for PostgreSQL, True is never 1."""
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Fraction(Decimal(repr(value)))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return (type(value), value)
