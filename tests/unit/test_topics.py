"""Names of topics, groups and keys, and the errors of bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from durable_notify import InvalidArgument
from durable_notify.topics import channel, check_group, check_key, check_topic, check_topics
from tests.support.names import NASTY_NAMES

CHECKS = [check_topic, check_group, check_key]
MOST = {check_topic: 255, check_group: 255, check_key: 1024}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ["a", "orders", "eu.orders/new-1", "Bestellungen-ü", "注文", "😀"])
def test_a_good_name_comes_back(check: Any, name: str) -> None:
    assert check(name) == name


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "name", ["", "a\x00b", "a\nb", "\x7f", "a\x85", "\ud800", 7, b"bytes", ["a"]]
)
def test_a_bad_name_is_refused(check: Any, name: Any) -> None:
    with pytest.raises(InvalidArgument):
        check(name)


@pytest.mark.parametrize("check", CHECKS)
def test_length_counts_in_bytes(check: Any) -> None:
    most = MOST[check]
    assert check("a" * most)
    with pytest.raises(InvalidArgument, match=f"has {most + 1} bytes; the maximum is {most}"):
        check("a" * (most + 1))
    with pytest.raises(InvalidArgument):
        check("ü" * (most // 2 + 1))


@pytest.mark.parametrize("name", [" a", "a b", "a\tb", "orders.*", "orders.>", "a\xa0b"])
def test_a_topic_has_no_white_space_and_no_wildcards(name: str) -> None:
    with pytest.raises(InvalidArgument, match="leave out"):
        check_topic(name)


@pytest.mark.parametrize("check", [check_group, check_key])
@pytest.mark.parametrize("name", [" a", "a b", "*", ">", "a\xa0b"])
def test_groups_and_keys_may_have_them(check: Any, name: str) -> None:
    assert check(name) == name


def test_no_key_is_no_key() -> None:
    assert check_key(None) is None


@pytest.mark.parametrize("check", [check_topic, check_group])
def test_a_topic_and_a_group_are_needed(check: Any) -> None:
    with pytest.raises(InvalidArgument, match="not NoneType"):
        check(None)


def test_topics_are_a_list_each_once() -> None:
    assert check_topics(["b", "a", "b"]) == ("b", "a")
    assert check_topics(name for name in ["a"]) == ("a",)


def test_one_name_where_a_list_belongs() -> None:
    with pytest.raises(InvalidArgument, match=r"write \['orders'\]"):
        check_topics("orders")


@pytest.mark.parametrize("topics", [[], ["a", ""], ["a", None]])
def test_bad_topics(topics: Any) -> None:
    with pytest.raises(InvalidArgument):
        check_topics(topics)


def test_a_message_does_not_repeat_a_name_of_any_length() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_topic("x" * 1_000_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_a_channel_always_fits(name: str) -> None:
    try:
        check_topic(name)
    except InvalidArgument:
        return
    assert len(channel(name).encode()) <= 63


def test_long_topics_do_not_share_a_channel() -> None:
    assert channel("a" * 48) == "durable_notify:" + "a" * 48
    assert len({channel("a" * length) for length in range(1, 256)}) == 255
