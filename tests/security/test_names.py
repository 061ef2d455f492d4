"""Python and SQL agree on what is a topic, a group, a key and a pattern, and what a pattern is for."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_notify import InvalidArgument
from durable_notify.topics import (
    ANY_TOPIC,
    channel,
    check_group,
    check_key,
    check_pattern,
    check_topic,
    is_pattern,
    matches,
)
from tests.security.hostile import BITS, any_name, fuzz, names, no_text, sendable
from tests.support.names import NASTY_NAMES

Connection = psycopg.Connection[Any]

#: Try a name, and take back what came of it: 'ok', or the SQLSTATE.
VERDICT = """
CREATE FUNCTION pg_temp.verdict(kind text, name text) RETURNS text LANGUAGE plpgsql AS $f$
BEGIN
    CASE kind
        WHEN 'topic' THEN PERFORM durable_notify.publish(name, '1');
        WHEN 'insert' THEN INSERT INTO durable_notify.outbox (topic, payload) VALUES (name, '1');
        WHEN 'key' THEN PERFORM durable_notify.publish('t', '1', name);
        WHEN 'dedup' THEN PERFORM durable_notify.publish('t', '1', dedup_key => name);
        WHEN 'group' THEN PERFORM durable_notify.subscribe(name, '{t}');
        WHEN 'rename' THEN PERFORM durable_notify.subscribe('was', '{t}'),
                                   durable_notify.rename_group('was', name);
        WHEN 'pattern' THEN PERFORM durable_notify.subscribe('g', ARRAY[name]);
    END CASE;
    RAISE EXCEPTION 'take it back' USING ERRCODE = 'TT000';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE SQLSTATE WHEN 'TT000' THEN 'ok' ELSE SQLSTATE END;
END $f$
"""
CHECKS: dict[str, Any] = {
    "topic": check_topic, "insert": check_topic, "key": check_key, "dedup": check_key,
    "group": check_group, "rename": check_group, "pattern": check_pattern,
}  # fmt: skip
#: How SQL refuses: in our words, or a constraint's.
REFUSALS = {"22023", "23514"}
#: An index's entry has a most of its own, which is met before our trigger is: nothing is written.
TOO_LONG = "54000"


def accepted(kind: str, name: Any) -> bool:
    try:
        CHECKS[kind](name)
    except InvalidArgument:
        return False
    return True


def disagreements(conn: Connection, kind: str, tried: list[str]) -> list[tuple[str, str]]:
    """The names on which the two halves do not agree, with what SQL says."""
    query = (
        "SELECT pg_temp.verdict(%s, n.name) FROM unnest(%s::text[]) WITH ORDINALITY AS n (name, i)"
    )
    verdicts = [row[0] for row in conn.execute(f"{query} ORDER BY n.i", [kind, tried])]
    wrong = []
    for name, verdict in zip(tried, verdicts, strict=True):
        refused = verdict in REFUSALS or (verdict == TOO_LONG and len(name.encode()) > 2000)
        if accepted(kind, name) is not (verdict == "ok") or not (verdict == "ok" or refused):
            wrong.append((name, verdict))
    return wrong


@pytest.fixture
def judge(conn: Connection) -> Connection:
    conn.execute(VERDICT)
    return conn


@pytest.mark.parametrize("kind", CHECKS)
@fuzz(40)
@given(tried=st.lists(any_name, min_size=20, max_size=60))
def test_the_halves_agree_on_names(judge: Connection, kind: str, tried: list[str]) -> None:
    refused = [name for name in tried if not sendable(name)]
    assert not any(accepted(kind, name) for name in refused)
    assert disagreements(judge, kind, [name for name in tried if sendable(name)]) == []


@pytest.mark.parametrize("kind", CHECKS)
def test_the_halves_agree_on_names_at_the_edge(judge: Connection, kind: str) -> None:
    tried = [name for name in NASTY_NAMES if sendable(name)]
    tried += [f"{name}.*" for name in tried] + [
        "*",
        ">",
        "*.>",
        "a..*",
        ".*",
        "*.",
        ">.a",
        "a.>.b",
        "**",
    ]
    assert disagreements(judge, kind, tried) == []


@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        (
            "_validate_message",
            "OR durable_notify._has_controls(message.topic, true) OR message.topic ~ '[*>]'",
            "",
        ),
        ("_validate_message", "BETWEEN 1 AND 1024", "BETWEEN 1 AND 1025"),
        ("subscribe", "pg_catalog.octet_length(p.pattern) > 255 OR", ""),
        ("_claim_dedup_key", "OR durable_notify._has_controls(dedup_key, false)", ""),
    ],
)
def test_a_disagreement_is_noticed(judge: Connection, function: str, old: str, new: str) -> None:
    definition = judge.execute(
        "SELECT string_agg(pg_get_functiondef(p.oid), ';') FROM pg_proc p WHERE p.proname = %s"
        " AND p.pronamespace = 'durable_notify'::regnamespace",
        [function],
    ).fetchone()[0]  # type: ignore[index]
    assert old in definition
    judge.execute(definition.replace(old, new).encode())
    with pytest.raises(AssertionError):
        for kind in CHECKS:
            test_the_halves_agree_on_names_at_the_edge(judge, kind)


@fuzz(200)
@given(name=no_text)
def test_what_is_no_text_is_no_name(name: Any) -> None:
    for kind in CHECKS:
        if not (name is None and kind in ("key", "dedup")):
            assert not accepted(kind, name)


words = st.sampled_from(
    [*(b for b in BITS if not set(b) & set(" *>\x1b\x07")), "a", "b", "ab", "+", "-", "^a", "$"]
)
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.lists(st.one_of(words, st.just("*")), min_size=1, max_size=4).map(".".join)


def reference(topic: str, pattern: str) -> bool:
    """What a pattern stands for, word by word."""
    parts, wanted = topic.split("."), pattern.split(".")
    if wanted[-1] == ">":
        rest = ".".join(parts[len(wanted) - 1 :])
        return (
            bool(rest) and reference(".".join(parts[: len(wanted) - 1]), ".".join(wanted[:-1]))
            if (len(wanted) > 1)
            else bool(rest)
        )
    return len(parts) == len(wanted) and all(
        bool(part) if want == "*" else part == want
        for part, want in zip(parts, wanted, strict=True)
    )


@pytest.mark.slow
@fuzz(60)
@given(
    tried=st.lists(
        st.tuples(topics, patterns, st.booleans(), st.integers(0, 20)), min_size=10, max_size=40
    ),
    strings=st.sampled_from(["on", "off"]),
)
def test_the_halves_agree_on_patterns(conn: Connection, tried: Any, strings: str) -> None:
    """With old-fashioned strings, too: a session may have them."""
    if conn.info.server_version < 190000:
        conn.execute(f"SET standard_conforming_strings = {strings}")
    pairs = []
    for topic, pattern, more, derived in tried:
        wanted = pattern + ".>" if more else pattern
        if derived < 10:  # one that may fit
            wanted = ".".join(
                "*" if (derived >> place) & 1 else word
                for place, word in enumerate(topic.split("."))
            )
            wanted = wanted + ".>" if more else wanted
        pairs += [(topic, wanted), (topic + ".b", wanted), (topic[1:], wanted)]
    pairs = [
        (t, p)
        for t, p in pairs
        if accepted("topic", t) and accepted("pattern", p) and is_pattern(p)
    ]
    query = (
        "SELECT u.topic ~ durable_notify._topic_regex(u.pattern)"
        " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS u (topic, pattern, i) ORDER BY u.i"
    )
    found = [row[0] for row in conn.execute(query, [[t for t, _ in pairs], [p for _, p in pairs]])]
    for (topic, pattern), in_sql in zip(pairs, found, strict=True):
        assert matches(topic, pattern) is in_sql is reference(topic, pattern), (topic, pattern)


@fuzz(60)
@given(tried=st.lists(st.one_of(any_name, names.map(lambda n: n * 9)), min_size=20, max_size=60))
def test_channels_fit_agree_and_are_unique(conn: Connection, tried: list[str]) -> None:
    good = sorted(
        {name for name in tried if accepted("topic", name)} | {"t" * 48, "t" * 49, "\u00fc" * 25}
    )
    query = "SELECT durable_notify.channel(t.name) FROM unnest(%s::text[]) WITH ORDINALITY AS t (name, i)"
    found = [row[0] for row in conn.execute(f"{query} ORDER BY t.i", [good])]
    assert found == [channel(name) for name in good]
    assert len(set(found)) == len(good)
    for name in found:
        assert len(name.encode()) <= 63
        # Neither the channel of all topics nor a listener's probe.
        assert name != ANY_TOPIC
        assert name.startswith(("durable_notify:", "durable_notify#"))
