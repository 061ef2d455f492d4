"""Archives: store messages in files or elsewhere before retention removes them.

Maintenance calls an archive with chunks of a topic, and after a crash with the same chunk again.
It removes a message only after ``finish`` has returned for its chunk.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import dataclasses
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

from ._core.posix import IS_POSIX, lock_file, locked_folder, sync_folder
from .errors import InvalidArgument
from .topics import check_topics, matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

    from .topics import TopicName

    #: Whether a message of this topic and key is meant.
    _Chosen = Callable[[str, str | None], bool]

__all__ = ["Archive", "ArchivedMessage", "Chunk", "NdjsonFiles", "ParquetFiles"]

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


class Chunk(Protocol):
    """A chunk of a topic that is being archived."""

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        """Write the next messages, in the order of their ids."""

    def finish(self) -> None:
        """Store them durably: once this returns, the messages may be removed.

        It is called only if all messages of the chunk were written. The call may be late: after
        another process has finished the same chunk, with the same messages.
        """

    def abandon(self) -> None:
        """Discard them: they are archived another time."""


class Archive(Protocol):
    """Stores messages; any object with this method."""

    def begin(self, topic: str, from_id: int, below: int) -> Chunk:
        """Begin a chunk: the messages with ids from ``from_id`` on and below ``below``.

        It is called again for the same messages if the chunk may not have finished. The archive may
        replace what it stored then only once it has all the messages again.

        An archive may also have a method ``tidy()``, called before each round to clean up after
        processes that were killed.
        """


NOT_HERE = (
    "Archives of files need POSIX, because they lock folders and rename open files. On Windows, "
    "run maintenance in WSL 2 or a container, or give it an archive of your own."
)


class _Files:
    """Writes a file for each chunk, in a folder for each topic: ``FOLDER/TOPIC/FROM-BELOW.SUFFIX``.

    A file with this name is complete and on the disk, and is never replaced. If there is one with
    another content, as after a restore, the new one gets a number.
    """

    file: ClassVar[type[_File]]

    def __init__(
        self, folder: str | os.PathLike[str], *, then: Callable[[Path], Any] | None = None
    ) -> None:
        if not IS_POSIX:
            raise InvalidArgument(NOT_HERE)
        self.folder = Path(folder)
        self.then = then

    def begin(self, topic: str, from_id: int, below: int) -> _File:
        target = self.folder / _folder_name(topic)
        target.mkdir(parents=True, exist_ok=True)
        return self.file(target, f"{from_id:019d}-{below:019d}", self.then)

    def erase(
        self, key: str, *, topics: Iterable[TopicName] | None = None, dry_run: bool = False
    ) -> int:
        """Remove a key's messages from the files in the folder; return how many there were.

        Each file that has some is written again, and takes the old one's place at once. ``then`` is
        called with it. Erase them from the database first: ``Admin.erase``.

        Args:
            key: the key of the messages.
            topics: only of these topics or patterns; None: of all.
            dry_run: only count.
        """
        wanted = None if topics is None else check_topics(topics)

        def is_meant(topic: str, of_key: str | None) -> bool:
            return of_key == key and (
                wanted is None or any(matches(topic, pattern) for pattern in wanted)
            )

        erased = 0
        for path in sorted(self.folder.glob(f"*/*.{self.file.suffix}")):
            with locked_folder(path.parent):  # two at once would bring back what the other removed
                found = self.file.copy(path, is_meant)
                if found and not dry_run:
                    new = self.file(
                        path.parent, path.name.removesuffix(f".{self.file.suffix}"), self.then
                    )
                    try:
                        self.file.copy(path, is_meant, new)
                        new.replace(path)
                    except BaseException:
                        new.abandon()
                        raise
            erased += found
        return erased

    def tidy(self) -> None:
        """Remove unfinished files of killed processes. Files that are being written are locked."""
        for path in self.folder.glob("*/.*.part"):
            with contextlib.suppress(OSError), path.open("rb") as left:
                lock_file(left)
                path.unlink()


def _folder_name(topic: str) -> str:
    name = quote(topic, safe="")
    if not name.strip("."):
        name = name.replace(".", "%2E")  # or it would be a path to another folder
    if len(name) > _LONGEST_FOLDER:
        name = f"{name[:120]}-{hashlib.sha256(topic.encode()).hexdigest()}"
    return name


class _File(abc.ABC):
    """A file in progress: it has another name until it is complete."""

    suffix: ClassVar[str]

    def __init__(self, folder: Path, name: str, then: Callable[[Path], Any] | None) -> None:
        self.path = folder / f"{name}.{self.suffix}"
        self.then = then
        self._names = (folder / f"{name}{more}.{self.suffix}" for more in _numbers())
        while True:
            # A name of its own: two processes may write the same chunk, with the same messages.
            self.unfinished = folder / f".{self.path.name}.{secrets.token_hex(8)}.part"
            self._raw = self.unfinished.open("xb")
            with contextlib.suppress(OSError):  # if files cannot be locked, none is tidied away
                lock_file(self._raw, wait=True)
            if self.unfinished.exists():
                break
            self._raw.close()  # tidied away before it was locked

    @abc.abstractmethod
    def write(self, messages: Sequence[ArchivedMessage]) -> None: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is left; the file stays open, and locked."""

    @classmethod
    @abc.abstractmethod
    def copy(cls, path: Path, is_left_out: _Chosen, new: Self | None = None) -> int:
        """Copy a complete file without some messages; return how many these are."""

    def finish(self) -> None:
        self._complete(self._name_it)

    def replace(self, path: Path) -> None:
        """Take the place of another file."""
        self._complete(lambda: self.unfinished.replace(path))

    def _complete(self, name_it: Callable[[], Path]) -> None:
        self.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        kept = name_it()
        self._raw.close()
        sync_folder(kept.parent)
        sync_folder(kept.parent.parent)
        if self.then is not None:
            self.then(kept)

    def abandon(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
        self._raw.close()
        self.unfinished.unlink(missing_ok=True)

    def _name_it(self) -> Path:
        """Give the file its name, if it is free; return the file that has the name then."""
        for name in self._names:
            try:
                os.link(self.unfinished, name)
            except FileExistsError:
                pass
            except OSError:
                # The file system has no links; or the file was removed, and the next call fails.
                if not name.exists():
                    self.unfinished.rename(name)
                    return name
            else:
                self.unfinished.unlink()
                return name
            if filecmp.cmp(self.unfinished, name, shallow=False):
                self.unfinished.unlink()
                return name
            log.warning("the archive already has another %s: both are kept", name)
        raise AssertionError("there is no end to numbers")


def _numbers() -> Iterator[str]:
    yield ""
    for number in itertools.count(2):
        yield f".{number}"


class _NdjsonFile(_File):
    suffix = "ndjson.gz"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Without name and time, so that the same chunk is the same file, byte for byte.
        self.packed = gzip.GzipFile("", "wb", 6, self._raw, mtime=0)

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        self.packed.write("".join(map(_line, messages)).encode())

    def close(self) -> None:
        self.packed.close()

    @classmethod
    def copy(cls, path: Path, is_left_out: _Chosen, new: Self | None = None) -> int:
        left_out = 0
        with gzip.open(path) as lines:
            for line in lines:
                if (begins := _BEGINNING.match(line)) is None:
                    raise InvalidArgument(f"{path} has a line that is no archived message")
                if is_left_out(json.loads(begins[1]), json.loads(begins[2])):
                    left_out += 1
                elif new is not None:
                    new.packed.write(line)
        return left_out


#: The topic and the key of a line; its payload may be more than Python's JSON can read.
_BEGINNING = re.compile(
    rb'\{"id": \d+, "topic": ("(?:[^"\\]|\\.)*"), "key": (null|"(?:[^"\\]|\\.)*"), '
)

#: JSON has these only in strings, and some readers end lines at them.
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def _line(message: ArchivedMessage) -> str:
    """Return a message as a line, with its JSON unchanged, so that no number loses a digit."""
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

    A line has id, topic, key, payload, headers and published_at, as ``consume`` prints them. It has
    deliver_at and expires_at if the message does. A payload of bytes is ``{"base64": ...}``, with
    ``"encoding": "base64"`` beside it.

    Args:
        folder: where a folder for each topic is made.
        then: called with each complete file's path, before it counts as archived: to upload it.
    """

    file = _NdjsonFile


class _ParquetFile(_File):
    suffix = "parquet"

    def __init__(self, *args: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(*args)
        time, text = pa.timestamp("us", tz="UTC"), pa.string()
        types = {
            "id": pa.int64(), "topic": text, "key": text, "payload": text, "data": pa.binary(),
            "headers": text, "published_at": time, "deliver_at": time, "expires_at": time,
        }  # fmt: skip
        self.table = pa.Table
        self._schema = pa.schema(list(types.items()))
        self.writer = pq.ParquetWriter(self._raw, self._schema, compression="zstd")

    def write(self, messages: Sequence[ArchivedMessage]) -> None:
        columns = {
            name: [getattr(message, name) for message in messages] for name in self._schema.names
        }
        self.writer.write_table(self.table.from_pydict(columns, schema=self._schema))

    def close(self) -> None:
        self.writer.close()

    @classmethod
    def copy(cls, path: Path, is_left_out: _Chosen, new: Self | None = None) -> int:
        import pyarrow.parquet as pq

        left_out = 0
        with pq.ParquetFile(path) as reader:
            for batch in reader.iter_batches():
                about = zip(batch["topic"].to_pylist(), batch["key"].to_pylist(), strict=True)
                kept = [not is_left_out(topic, key) for topic, key in about]
                left_out += kept.count(False)
                if new is not None:
                    new.writer.write_table(new.table.from_batches([batch]).filter(kept))
        return left_out


class ParquetFiles(_Files):
    """Files of Parquet. Payload and headers are JSON text.

    It needs ``pip install "durable-notify[parquet]"``.

    Args:
        folder: where a folder for each topic is made.
        then: called with each complete file's path, before it counts as archived: to upload it.

    Raises:
        InvalidArgument: pyarrow is not installed.
    """

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
