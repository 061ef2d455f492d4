"""An AsyncAPI 3 document of the topics that a module defines."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .codecs import JsonCodec
from .errors import InvalidArgument
from .topics import Topic

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["document", "topics_of"]

_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9._-]")
_WILDCARDS = {"*": "one word", ">": "one word or more, with dots between them"}


def topics_of(module: ModuleType) -> list[Topic[Any]]:
    """Return the topics that a module has, by name; those of its submodules that are imported too.

    Raises:
        InvalidArgument: there are none, or two of one name.
    """
    inside = f"{module.__name__}."
    modules = [
        module,
        *(one for name, one in sorted(sys.modules.items()) if name.startswith(inside)),
    ]
    found: dict[str, Topic[Any]] = {}
    for one in modules:
        for value in list(vars(one).values()):
            if not isinstance(value, Topic):
                continue
            if found.setdefault(value.name, value) is not value:
                raise InvalidArgument(f"there are two topics {value.name!r}: make one of them")
    if not found:
        raise InvalidArgument(
            f"module {module.__name__} has no topic: define one at its top level, as in "
            "orders = Topic('orders', OrderPlaced)"
        )
    return [found[name] for name in sorted(found)]


def document(module: ModuleType) -> dict[str, Any]:
    """Return the AsyncAPI document of a module's topics.

    The title is the module's name, the version its ``__version__`` or that of its package, the
    description its docstring.
    """
    package = sys.modules.get(module.__name__.partition(".")[0])
    version = getattr(module, "__version__", None) or getattr(package, "__version__", "0.0.0")
    info = {"title": module.__name__, "version": str(version)}
    if module.__doc__:
        info["description"] = module.__doc__.strip()
    topics = topics_of(module)
    keys = _keys(topic.name for topic in topics)
    return {
        "asyncapi": "3.0.0",
        "info": info,
        "defaultContentType": "application/json",
        "channels": {keys[topic.name]: _channel(topic, keys[topic.name]) for topic in topics},
        "components": {
            "messages": {keys[topic.name]: _message(topic, keys[topic.name]) for topic in topics},
            "schemas": {
                keys[topic.name]: schema
                for topic in topics
                if (schema := _schema(topic, keys[topic.name])) is not None
            },
        },
    }


def _keys(names: Iterable[str]) -> dict[str, str]:
    """Return a key for each topic: letters, digits, dots, dashes and underscores."""
    keys: dict[str, str] = {}
    for name in names:
        key = base = _NOT_IN_KEY.sub("_", name)
        number = 1
        while key in keys.values():
            number += 1
            key = f"{base}_{number}"
        keys[name] = key
    return keys


def _channel(topic: Topic[Any], key: str) -> dict[str, Any]:
    words = topic.name.split(".")
    parameters: dict[str, Any] = {}
    for index, word in enumerate(words):
        if word in _WILDCARDS:
            name = f"word{len(parameters) + 1}"
            words[index] = f"{{{name}}}"
            parameters[name] = {"description": _WILDCARDS[word]}
    channel: dict[str, Any] = {
        "address": ".".join(words),
        "messages": {key: {"$ref": f"#/components/messages/{key}"}},
    }
    if parameters:
        channel["parameters"] = parameters
    return channel


def _message(topic: Topic[Any], key: str) -> dict[str, Any]:
    message: dict[str, Any] = {"name": getattr(topic.codec, "name", type(topic.codec).__name__)}
    if not isinstance(topic.codec, JsonCodec):
        message["contentType"] = "application/octet-stream"
    if hasattr(topic.codec, "json_schema"):
        message["payload"] = {"$ref": f"#/components/schemas/{key}"}
    return message


def _schema(topic: Topic[Any], key: str) -> dict[str, Any] | None:
    """Return the schema of a topic's payloads, whose references point into the document."""
    json_schema = getattr(topic.codec, "json_schema", None)
    if json_schema is None:
        return None
    schema: dict[str, Any] = json_schema(f"#/components/schemas/{key}/$defs/{{model}}")
    return schema
