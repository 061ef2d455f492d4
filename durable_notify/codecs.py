"""Codecs: how values become payloads, and payloads values again."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import typing
from typing import TYPE_CHECKING, Any, Generic, Protocol

from .errors import InvalidArgument, PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
    M = TypeVar("M", default=Any)
else:
    T = typing.TypeVar("T")  # Python 3.11 has no defaults
    M = typing.TypeVar("M")

__all__ = ["Bytes", "Codec", "JsonCodec", "JsonText", "M", "T", "codec_of"]

#: How many of a payload's faults to name.
_NAMED = 5


class JsonText(str):
    """JSON to publish unchanged, as a payload or a header's value.

    Decoding and encoding would change a number of 20 digits, and fail for deep nesting.
    """

    __slots__ = ()


class Codec(Protocol[T]):
    """Turns the values of a topic into payloads, and back: to encrypt, to compress, other formats.

    Neither method does I/O: ``decode`` runs where messages are claimed. A codec may also have
    ``json_schema(ref_template)``, as ``JsonCodec`` has, for the AsyncAPI document.
    """

    def encode(self, value: T, /) -> Any:
        """Return a JSON value, or bytes to store unchanged. What it raises, ``publish`` raises."""
        ...

    def decode(self, payload: Any, /) -> T:
        """Return the value of a stored payload: a JSON value or bytes.

        If it raises an Exception, the message becomes a dead letter with that error.
        """
        ...


class JsonCodec(Generic[T]):
    """Values of a type as JSON, checked both ways.

    msgspec checks its structs, and pydantic all other types: its models, dataclasses,
    ``TypedDict``, ``list[int]``.

    ``decode_json`` returns the value of JSON text. It raises PayloadError if that is not of the
    type; the error names the fields, and no values.

    Raises:
        InvalidArgument: the type cannot be checked, or the package that checks it is missing.
    """

    def __init__(self, kind: type[T], /) -> None:
        self.name = kind.__name__ if isinstance(kind, type) else str(kind)
        msgspec = sys.modules.get("msgspec")  # if it is not there, this is no struct
        is_struct = msgspec and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        self._backend = _Msgspec(kind, self.name) if is_struct else _Pydantic(kind, self.name)
        self.decode_json: Callable[[str | bytes], T] = self._backend.loads

    def encode_json(self, value: T) -> str:
        """Return a value as JSON text.

        Raises:
            PayloadError: it is not of the type; or consumers could not read it, because the fields
                of dataclasses and structs may hold anything.
        """
        self._backend.check(value)
        text = self._backend.dumps(value)
        self._backend.loads(text)
        return text.decode()

    def encode(self, value: T) -> Any:
        """Return a value as JSON; raises what ``encode_json`` raises."""
        return json.loads(self.encode_json(value))

    def decode(self, payload: Any) -> T:
        """Return the value of JSON; raises what ``decode_json`` raises."""
        if isinstance(payload, bytes):
            raise PayloadError(f"the payload is not {self.name}: it is bytes, not JSON")
        return self.decode_json(json.dumps(payload))

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        """Return the JSON Schema, with references as the template says: ``#/$defs/{model}``."""
        return self._backend.json_schema(ref_template)


class Bytes:
    """Payloads of bytes, stored unchanged."""

    name = "bytes"

    @staticmethod
    def encode(value: bytes) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise PayloadError(f"the payload is not bytes, but {type(value).__name__}")
        return bytes(value)

    @staticmethod
    def decode(payload: Any) -> bytes:
        if not isinstance(payload, bytes):
            raise PayloadError("the payload is not bytes, but JSON")
        return payload


def codec_of(kind: Any) -> Any:
    """Return the codec of a type; a codec is returned as it is."""
    if kind is bytes:
        return Bytes()
    if isinstance(kind, type):
        return JsonCodec(kind)
    methods = [name for name in ("encode", "decode") if callable(getattr(kind, name, None))]
    if len(methods) == 1:
        raise InvalidArgument(f"{kind!r} has {methods[0]}(), and a codec has encode() and decode()")
    return kind if methods else JsonCodec(kind)


class _Backend:
    """What checks a type."""

    def __init__(self, kind: Any, name: str) -> None:
        self._kind = kind
        self._name = name

    def check(self, value: Any) -> None:
        """Raise PayloadError if a value is of another type; its fields are not checked."""
        if not isinstance(value, self._kind):
            raise PayloadError(f"the payload is not {self._name}, but {type(value).__name__}")

    def dumps(self, value: Any) -> bytes:
        """Return JSON; raises PayloadError."""
        raise NotImplementedError

    def loads(self, text: str | bytes) -> Any:
        """Return the checked value of JSON; raises PayloadError."""
        raise NotImplementedError

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        """Return the JSON Schema."""
        raise NotImplementedError

    def _error(self, flaws: Iterable[str]) -> PayloadError:
        named = list(flaws)
        more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return PayloadError(f"the payload is not {self._name}: {'; '.join(named[:_NAMED])}{more}")


class _Pydantic(_Backend):
    def __init__(self, kind: Any, name: str) -> None:
        super().__init__(kind, name)
        try:
            import pydantic
        except ImportError:
            raise InvalidArgument(
                f"pydantic, which checks {name}, is not installed: pip install "
                "'durable-notify[pydantic]', or give a codec of your own"
            ) from None
        try:
            self._adapter = pydantic.TypeAdapter(kind)
            self._validate = self._adapter.validator.validate_json
        except (pydantic.errors.PydanticUserError, NameError) as error:
            raise InvalidArgument(
                f"pydantic cannot check {name}: give another type, or a codec of your own. {error}"
            ) from error
        self._flaw = pydantic.ValidationError
        self._has_instances = isinstance(kind, type) and (
            issubclass(kind, pydantic.BaseModel) or dataclasses.is_dataclass(kind)
        )

    def check(self, value: Any) -> None:
        if self._has_instances:
            super().check(value)
            return
        try:
            self._adapter.validate_python(value, strict=True)
        except self._flaw as error:
            raise self._error(_texts(error)) from None

    def dumps(self, value: Any) -> bytes:
        try:
            # No warnings of wrong fields: reading it back raises.
            return self._adapter.dump_json(value, by_alias=True, warnings=False)
        except ValueError as error:
            raise self._error([str(error)]) from None

    def loads(self, text: str | bytes) -> Any:
        try:
            return self._validate(text)
        except self._flaw as error:
            raise self._error(_texts(error)) from None

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        return self._adapter.json_schema(ref_template=ref_template)


def _texts(error: Any) -> Iterable[str]:
    """Return what is wrong with which field. Trap: the error's own text has values too."""
    for flaw in error.errors(include_url=False, include_input=False):
        field = ".".join(map(str, flaw["loc"]))
        text = flaw["msg"]
        if flaw["type"] == "union_tag_invalid":  # it has the value of the tag
            text = "{discriminator} should be one of {expected_tags}".format(**flaw["ctx"])
        yield f"{field}: {text}" if field else text


#: What msgspec says of wrong enums, literals and tags: it has the value.
_WITH_VALUE = re.compile(
    r"(Invalid (?:enum )?value) .*?((?: - at `[^`]*`(?: in `[^`]*`)?)?)", re.DOTALL
)


class _Msgspec(_Backend):
    def __init__(self, kind: Any, name: str) -> None:
        super().__init__(kind, name)
        import msgspec

        self._schema_of = msgspec.json.schema_components
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(kind).decode

    def dumps(self, value: Any) -> bytes:
        try:
            return self._encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._error([str(error)]) from None

    def loads(self, text: str | bytes) -> Any:
        try:
            return self._decode(text)
        except (ValueError, RecursionError) as error:  # its errors are ValueErrors
            found = _WITH_VALUE.fullmatch(text := str(error))
            raise self._error(["".join(found.groups()) if found else text]) from None

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        template = ref_template.replace("{model}", "{name}")
        [found], components = self._schema_of([self._kind], ref_template=template)
        return {**found, "$defs": components}
