"""Routes of a relay: a mapping from topics to a broker's exchanges, topics or subjects."""

from __future__ import annotations

import functools
import string
from typing import TYPE_CHECKING

from ..errors import InvalidArgument
from ..topics import check_pattern, matches, overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Routes", "parse_routes"]

_NAMES = ("topic", "key", "id")
_EXAMPLE = "orders.*=exchange:orders,routing_key:{topic}"


class Routes:
    """A checked mapping: by topic or pattern, the value of each of the broker's fields.

    The first pattern that matches a topic applies. If none does, and for fields that it does not
    name, the broker's defaults apply. Values are templates: ``{topic}``, ``{key}`` and ``{id}`` are
    replaced by the message's; a message without a key has an empty one.

    Raises:
        InvalidArgument: a pattern, field or template cannot work, or a pattern matches no topic.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        given: Mapping[str, Mapping[str, str]],
        topics: Iterable[str],
        check: Callable[[str, str], None],
    ) -> None:
        topics = tuple(topics)
        self._fields = dict(fields)
        self._rules: dict[str, dict[str, str]] = {}
        for field, template in fields.items():
            _check_template(field, template)
        for pattern, values in given.items():
            check_pattern(pattern)
            if not any(overlap(pattern.split("."), topic.split(".")) for topic in topics):
                raise InvalidArgument(
                    f"the mapping for {pattern!r} matches none of the topics: {', '.join(topics)}"
                )
            for field, template in values.items():
                if field not in fields:
                    raise InvalidArgument(
                        f"a mapping has no {field!r} for this broker; it has {', '.join(fields)}"
                    )
                _check_template(field, template)
                check(field, template)
            self._rules[pattern] = {**fields, **values}
        #: By topic: its fields, and which names are in them.
        self._found: dict[str, tuple[dict[str, str], set[str]]] = {}
        self._filled = functools.lru_cache(10_000)(self._fill)

    def of(self, topic: str, key: str | None, message_id: int) -> dict[str, str]:
        """Return the fields filled in for a message."""
        found = self._found.get(topic)
        if found is None:
            values = next(
                (rule for pattern, rule in self._rules.items() if matches(topic, pattern)),
                self._fields,
            )
            names = {name for value in values.values() for name in _names(value)}
            found = self._found[topic] = values, names
        values, names = found
        if "id" in names:
            return _fill(values, topic, key, message_id)
        return self._filled(topic, key if "key" in names else None)

    def _fill(self, topic: str, key: str | None) -> dict[str, str]:
        return _fill(self._found[topic][0], topic, key, "")

    def fixed(self, field: str) -> set[str]:
        """Return the mapping's values of a field that are the same for all messages."""
        return {
            rule[field].format(topic="", key="", id="")
            for rule in self._rules.values()
            if not _names(rule[field])
        }


def _fill(
    values: Mapping[str, str], topic: str, key: str | None, message_id: object
) -> dict[str, str]:
    return {
        field: template.format(topic=topic, key=key or "", id=message_id)
        for field, template in values.items()
    }


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def parse_routes(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """Parse mappings of the command line: ``PATTERN=FIELD:VALUE,FIELD:VALUE``.

    Raises:
        InvalidArgument: one of them has another form.
    """
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        pattern, equals, values = line.partition("=")
        rule = {}
        for pair in values.split(","):
            field, colon, value = pair.partition(":")
            if not (pattern and equals and field and colon and value) or field in rule:
                raise InvalidArgument(
                    f"the mapping {line!r} cannot be read: write PATTERN=FIELD:VALUE,FIELD:VALUE, "
                    f"as in {_EXAMPLE!r}"
                )
            rule[field] = value
        if pattern in found:
            raise InvalidArgument(f"there are two mappings for {pattern!r}")
        found[pattern] = rule
    return found


def _check_template(field: str, template: str) -> None:
    problem = None
    if not isinstance(template, str) or not template:
        problem = "it must be a str that is not empty"
    else:
        try:
            for _, name, spec, conversion in string.Formatter().parse(template):
                if name is not None and (name not in _NAMES or spec or conversion):
                    problem = "only {topic}, {key} and {id} can be filled in"
        except ValueError as error:
            problem = f"{error}; write a literal brace twice"
    if problem:
        raise InvalidArgument(f"the mapping's {field} {template!r} cannot work: {problem}")
