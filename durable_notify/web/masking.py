"""Fields that the dashboard does not show."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import InvalidArgument

__all__ = ["MASKED", "Masks"]

#: What stands in the place of a value that is not shown.
MASKED = "•••"


class Masks:
    """Replaces fields of payloads and headers, before anything is searched, shown or copied.

    Args:
        paths: names of fields, wherever they are, or paths from the top: ``card.number``. Upper and
            lower case are the same.

    Raises:
        InvalidArgument: a path is empty, or has an empty part.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        if isinstance(paths, str):
            raise InvalidArgument(f"masks is a list of paths, not one text: {paths!r}")
        self._paths = {tuple(path.lower().split(".")) for path in paths}
        for path in self._paths:
            if not all(path):
                raise InvalidArgument(f"a mask is a name or a path, not {'.'.join(path)!r}")

    def __bool__(self) -> bool:
        return bool(self._paths)

    def hides(self, path: str) -> bool:
        """Return whether a path leads to, or through, something masked."""
        parts = tuple(path.lower().split("."))
        return any(
            parts[:length] in self._paths or parts[length - 1 : length] in self._paths
            for length in range(1, len(parts) + 1)
        )

    def text(self, given: str | None) -> str | None:
        """Return JSON text with what is masked replaced; other text as it is."""
        if given is None or not self._paths:
            return given
        # Numbers as they are written: a float would lose digits.
        value = json.loads(given, parse_float=_Number, parse_int=_Number)
        masked = self.value(value)
        return given if masked == value else _written(masked)

    def value(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """Return a decoded value with what is masked replaced."""
        if isinstance(value, dict):
            return {name: self._field(name, each, path) for name, each in value.items()}
        if isinstance(value, list):
            return [self.value(each, path) for each in value]
        return value

    def _field(self, name: str, value: Any, path: tuple[str, ...]) -> Any:
        here = (*path, name.lower())
        if here in self._paths or here[-1:] in self._paths:
            return MASKED
        return self.value(value, here)


class _Number(str):
    """A number of JSON, as it was written."""

    __slots__ = ()


def _written(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        fields = (f"{json.dumps(k, ensure_ascii=False)}: {_written(v)}" for k, v in value.items())
        return "{" + ", ".join(fields) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
