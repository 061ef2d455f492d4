"""Which messages an endpoint gets, of those of its topics."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..payloads import JsonText

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._async.consumer.message import AsyncMessage

__all__ = ["Filter", "contains"]


class Filter:
    """Conditions, of which a message has to match all.

    Args:
        wanted: ``key`` (one, or a list of them), and what ``headers`` and ``payload`` contain.
    """

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        given = _read(json.dumps(wanted))
        key = given.get("key")
        self._keys = None if key is None else key if isinstance(key, list) else [key]
        self._headers = given.get("headers")
        self._has_payload = "payload" in given
        self._payload = given.get("payload")

    def passes(self, message: AsyncMessage) -> bool:
        """Return whether a relay's message matches: its payload is text, and has every digit."""
        if self._keys is not None and message.key not in self._keys:
            return False
        if self._headers is not None:
            headers = {
                name: _read(value) if isinstance(value, JsonText) else value
                for name, value in message.headers.items()
            }
            if not contains(headers, self._headers):
                return False
        if not self._has_payload:
            return True
        text = message.payload
        return isinstance(text, str) and contains(_read(text), self._payload)


def _read(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


def contains(whole: Any, part: Any) -> bool:
    """Return whether a value of JSON contains another, as ``@>`` of jsonb does."""
    if isinstance(whole, list) and not isinstance(part, (list, dict)):
        return any(_within(each, part) for each in whole)  # only at the top
    return _within(whole, part)


def _within(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and _within(whole[name], part[name]) for name in part)
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(_within(each, one) for each in whole) for one in part)
    if isinstance(whole, bool) or isinstance(part, bool):
        return whole is part  # to Python, true is 1
    return bool(whole == part)
