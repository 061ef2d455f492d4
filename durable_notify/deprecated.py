"""Spellings from before 0.1 that still work, with a DeprecationWarning; nothing else knows them."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InvalidArgument
from .groups import STORED, Group, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["INTERVALS", "moved", "old_spelling", "with_retry_policy"]

F = TypeVar("F", bound="Callable[..., Any]")

#: Options of consumers and readers that have another name.
INTERVALS = {
    "poll": "poll_interval",
    "idle_poll": "idle_poll_interval",
    "heartbeat": "heartbeat_interval",
}
_RETRY = {
    "max_attempts": "max_attempts", "retry_base": "base", "retry_factor": "factor",
    "retry_max": "max", "retry_delays": "delays",
}  # fmt: skip
#: In which module the names are that were in ``durable_notify``.
_MOVED = {
    "archive": ("Archive", "ArchivedMessage", "NdjsonFiles", "ParquetFiles"),
    "bridge": ("AsyncBridge", "Bridge"),
    "codecs": ("Codec", "JsonCodec"),
    "errors": (
        "AlreadySettled", "BrokerUnavailable", "CaptureIncomplete", "ClaimBusy", "ClaimRefused",
        "ConsumerClosed", "EmbeddedError", "EncodingUnsupported", "ForeignCluster",
        "HandlerTimeout", "ListenUnavailable", "MessageNotFound", "NoHandler", "OutOfOrder",
        "PayloadError", "PayloadTooLarge", "SchemaError", "SchemaMissing", "SchemaTooNew",
        "SchemaTooOld", "SettleError", "UnknownGroup", "UnknownTopic", "UnsupportedConnection",
        "UsedAfterFork", "WorkNotDone",
    ),
    "groups": ("GroupSettings",),
    "integrations.otel": ("context_of",),
    "middleware": ("Handling", "Publishing"),
    "models": (
        "AccessGrant", "AuditEntry", "BlockedKey", "BridgeInfo", "DeadLetter", "DeadLetterFilter",
        "GroupInfo", "Health", "LostMessages", "OpenPublisher", "PendingRetry", "ReadMessage",
        "ReplayFilter", "ReplayJob", "Retention", "RetentionBlocker", "RetryCount", "RetryFilter",
        "SeekResult", "TopicStatus",
    ),
    "options": ("ConsumerOptions",),
    "topics": ("channel",),
}  # fmt: skip


def old_spelling(
    renamed: Mapping[str, str], *, positional: tuple[str, ...] = (), of_group: bool = False
) -> Callable[[F], F]:
    """Decorate ``__init__``: it takes arguments as they were written before, with a warning.

    Args:
        renamed: the new name of each old one.
        positional: arguments that could be given by position.
        of_group: whether it took the options of a group, beside its name.
    """

    def decorate(method: F) -> F:
        parameters = inspect.signature(method).parameters.values()
        taken = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)

        @functools.wraps(method)
        def call(*args: Any, **given: Any) -> None:
            for name, value in zip(positional, args[taken:], strict=False):
                if name in given:
                    raise TypeError(f"{name} was given twice")
                _warn(f"give {name} by name: {name}=...", 3)
                given[name] = value
            for old in [name for name in renamed if name in given]:
                if renamed[old] in given:
                    raise InvalidArgument(f"give {renamed[old]}, and not {old} too")
                _warn(f"{old}= is now {renamed[old]}=", 3)
                given[renamed[old]] = given.pop(old)
            if of_group:
                _move_to_group(given)
            method(*args[:taken], *args[taken + len(positional) :], **given)

        return call  # type: ignore[return-value]

    return decorate


def _move_to_group(given: dict[str, Any]) -> None:
    names = [name for name in ("start", *STORED) if name in given]
    if not names or "group" not in given:
        return
    options = {name: given.pop(name) for name in names}
    if isinstance(given["group"], Group):
        raise InvalidArgument(f"give {', '.join(names)} to dn.Group, which has the group's options")
    given["group"] = Group(given["group"], **_with_retry_policy(options))
    _warn(f"{', '.join(names)}: options of the group. Write group={given['group']!r}", 4)


def with_retry_policy(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a group with those of its retries as a RetryPolicy, with a warning."""
    changed = _with_retry_policy(settings)
    if changed.keys() != settings.keys():
        old = ", ".join(name for name in _RETRY if name in settings)
        _warn(f"{old}: parts of the policy. Write retry={changed['retry']!r}", 4)
    return changed


def _with_retry_policy(settings: dict[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in settings.items() if name not in _RETRY}
    policy = {new: settings[old] for old, new in _RETRY.items() if old in settings}
    if policy and "retry" in settings:
        raise InvalidArgument(f"give {next(iter(policy))} to the RetryPolicy")
    return {**others, "retry": RetryPolicy(**policy)} if policy else others


def moved(name: str) -> Any:
    """Return what has left ``durable_notify`` for one of its modules, with a warning."""
    for module, names in _MOVED.items():
        if name in names:
            _warn(f"durable_notify.{name} is now durable_notify.{module}.{name}", 3)
            return getattr(importlib.import_module(f"durable_notify.{module}"), name)
    raise AttributeError(f"module 'durable_notify' has no attribute {name!r}")


def _warn(what: str, level: int) -> None:
    warnings.warn(what, DeprecationWarning, stacklevel=level)
