"""Where messages go before retention removes them: files, or whatever else keeps them.

Maintenance calls an archive with stretches of a topic, the same stretch again after a crash. A
message is removed only once ``finish`` has returned for its stretch.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import dataclasses
import fcntl
import filecmp
import gzip
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import quote

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Archive", "ArchivedMessage", "NdjsonFiles", "ParquetFiles", "Part"]

log = logging.getLogger("durable_notify")

_LONGEST_FOLDER = 200


@dataclasses.dataclass(frozen=True, slots=True)
class ArchivedMessage:
    """A message as it was published. ``payload`` and ``headers`` are JSON text, as stored."""

    id: int
    topic: str
    key: str | None = dataclasses.field(repr=False)
    payload: str | None = dataclasses.field(repr=False)
    data: bytes | None = dataclasses.field(repr=False)
    headers: str | None = dataclasses.field(repr=False)
    published_at: datetime
    deliver_at: datetime | None
    expires_at: datetime | None


class Part(Protocol):
    """A stretch of a topic that is being archived."""

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        """Take the next messages, in the order of their ids."""

    def finish(self) -> None:
        """Keep them for good: once this returns, the messages may be removed.

        It is called only where all messages of the stretch were written. It may come late: after
        another process has finished the same stretch, with the same messages.
        """

    def abandon(self) -> None:
        """Forget them: they are archived another time."""


class Archive(Protocol):
    """Keeps messages; anything that has this method."""

    def begin(self, topic: str, from_id: int, below: int) -> Part:
        """Begin with the messages whose ids are from ``from_id`` on and below ``below``.

        It is called again with the same messages if it may not have finished. What was kept
        of them then may be replaced once all of them are there again, and not before.

        An archive may have a method ``tidy()`` as well, called before each round: to clear away
        what processes that were killed have left.
        """


class _Files:
    """A file a stretch, in a folder a topic: ``FOLDER/TOPIC/FROM-BELOW.SUFFIX``.

    A file that has its name is complete and on the disk, and is never replaced: where there is one
    with another content, as after a restore, the new one gets a number.
    """

    suffix: ClassVar[str]
    file: ClassVar[type[_File]]

    def __init__(
        self, folder: str | os.PathLike[str], *, then: Callable[[Path], Any] | None = None
    ) -> None:
        self.folder = Path(folder)
        self.then = then

    def begin(self, topic: str, from_id: int, below: int) -> _File:
        target = self.folder / _folder_name(topic)
        target.mkdir(parents=True, exist_ok=True)
        return self.file(target, f"{from_id:019d}-{below:019d}", self.suffix, self.then)

    def tidy(self) -> None:
        """Remove what killed processes left unfinished. What is being written is locked."""
        for path in self.folder.glob("*/.*.part"):
            with contextlib.suppress(OSError), path.open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _folder_name(topic: str) -> str:
    name = quote(topic, safe="")
    if not name.strip("."):
        name = name.replace(".", "%2E")  # or it would lead elsewhere
    if len(name) > _LONGEST_FOLDER:
        name = f"{name[:120]}-{hashlib.sha256(topic.encode()).hexdigest()}"
    return name


class _File(abc.ABC):
    """A file on its way: under another name until it is complete."""

    def __init__(
        self, folder: Path, name: str, suffix: str, then: Callable[[Path], Any] | None
    ) -> None:
        self.path = folder / f"{name}.{suffix}"
        self.then = then
        self._names = (folder / f"{name}{more}.{suffix}" for more in _numbers())
        while True:
            # Of its own: two may write the same stretch at once, and both are right.
            self.unfinished = folder / f".{self.path.name}.{secrets.token_hex(8)}.part"
            self._raw = self.unfinished.open("xb")
            with contextlib.suppress(OSError):  # where files cannot be locked, none is tidied away
                fcntl.flock(self._raw, fcntl.LOCK_EX)
            if self.unfinished.exists():
                break
            self._raw.close()  # tidied away before it was locked

    @abc.abstractmethod
    def write(self, messages: Sequence[ArchivedMessage]) -> None: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is left; the file stays open, and locked."""

    def finish(self) -> None:
        self.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        kept = self._name_it()
        self._raw.close()
        _sync(kept.parent)
        _sync(kept.parent.parent)
        if self.then is not None:
            self.then(kept)

    def abandon(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
        self._raw.close()
        self.unfinished.unlink(missing_ok=True)

    def _name_it(self) -> Path:
        """Give the file its name, where none has it; return the file that is there then."""
        for name in self._names:
            try:
                os.link(self.unfinished, name)
            except FileExistsError:
                pass
            except OSError:
                # No links on this file system: or the file was taken away, which says so itself.
                if not name.exists():
                    self.unfinished.rename(name)
                    return name
            else:
                self.unfinished.unlink()
                return name
            if filecmp.cmp(self.unfinished, name, shallow=False):
                self.unfinished.unlink()
                return name
            log.warning("the archive already has another %s: it is kept, too", name)
        raise AssertionError("there is no end to numbers")


def _numbers() -> Iterator[str]:
    yield ""
    for number in itertools.count(2):
        yield f".{number}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _NdjsonFile(_File):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Without name and time: the same stretch is the same file, byte for byte.
        self._packed = gzip.GzipFile("", "wb", 6, self._raw, mtime=0)

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        self._packed.write("".join(map(_line, messages)).encode())

    def close(self) -> None:
        self._packed.close()


#: Within JSON these stand in strings only, and some readers end lines at them.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _line(message: ArchivedMessage) -> str:
    """Write a message as a line; its JSON as it is, so that no number loses a digit."""
    fields = [f'"id": {message.id}', f'"topic": {_text(message.topic)}']
    fields.append(f'"key": {_text(message.key)}')
    if message.data is None:
        fields.append(f'"payload": {message.payload}')
    else:
        packed = base64.b64encode(message.data).decode()
        fields.append(f'"payload": {{"base64": "{packed}"}}, "encoding": "base64"')
    fields.append(f'"headers": {message.headers or "{}"}')
    times = {name: getattr(message, name) for name in ("published_at", "deliver_at", "expires_at")}
    fields += [f'"{name}": "{_time(at)}"' for name, at in times.items() if at is not None]
    line = f"{{{', '.join(fields)}}}\n"
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _text(value: str | None) -> str:
    return json.dumps(value, ensure_ascii=False)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


class NdjsonFiles(_Files):
    """Files of NDJSON, compressed with gzip.

    ``zcat FILE | durable-notify publish TOPIC --envelope`` reads them back.

    A line has id, topic, key, payload, headers and published_at, as ``consume`` prints them, and
    deliver_at and expires_at where the message has them; a payload of bytes is ``{"base64": ...}``,
    with ``"encoding": "base64"`` beside it.

    Args:
        folder: where a folder for each topic is made.
        then: called with each complete file's path, before it counts as archived: to upload it.
    """

    suffix = "ndjson.gz"
    file = _NdjsonFile


class _ParquetFile(_File):
    def __init__(self, *args: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(*args)
        time, text = pa.timestamp("us", tz="UTC"), pa.string()
        types = {
            "id": pa.int64(), "topic": text, "key": text, "payload": text, "data": pa.binary(),
            "headers": text, "published_at": time, "deliver_at": time, "expires_at": time,
        }  # fmt: skip
        self._table = pa.Table
        self._schema = pa.schema(list(types.items()))
        self._writer = pq.ParquetWriter(self._raw, self._schema, compression="zstd")

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        columns = {
            name: [getattr(message, name) for message in messages] for name in self._schema.names
        }
        self._writer.write_table(self._table.from_pydict(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


class ParquetFiles(_Files):
    """Files of Parquet. Payload and headers are JSON text.

    It needs ``pip install "durable-notify[parquet]"``.

    Args:
        folder: where a folder for each topic is made.
        then: called with each complete file's path, before it counts as archived: to upload it.

    Raises:
        InvalidArgument: pyarrow is not installed.
    """

    suffix = "parquet"
    file = _ParquetFile

    def __init__(
        self, folder: str | os.PathLike[str], *, then: Callable[[Path], Any] | None = None
    ) -> None:
        super().__init__(folder, then=then)
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise InvalidArgument(
                'Parquet needs pyarrow: pip install "durable-notify[parquet]", or archive as NDJSON'
            ) from None
