"""What only POSIX has: in one place, and each with what is left of it on Windows."""

from __future__ import annotations

import os
import select
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

try:
    import fcntl
    import pwd
    import termios
    import tty
except ImportError:  # Windows
    IS_POSIX = False
else:
    IS_POSIX = True

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "IS_POSIX", "PIPE_BUF", "Account", "after_fork", "is_appending", "is_root", "key_by_key",
    "lock_file", "locked_folder", "opened_again", "poll", "sync_folder", "unprivileged", "unread",
    "wait_readable", "yield_cpu",
]  # fmt: skip

if TYPE_CHECKING:
    Account = pwd.struct_passwd
else:
    Account = object

#: A write of at most this size into a pipe is not split.
PIPE_BUF = getattr(select, "PIPE_BUF", 512)


def after_fork(action: Callable[[], None]) -> None:
    """Call `action` in each child that is forked. Windows does not fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


def lock_file(file: int | IO[bytes], *, wait: bool = False) -> None:
    """Lock a file for its process and the children that inherit it.

    Raises:
        BlockingIOError: it is locked, and this does not wait.
        OSError: files cannot be locked here, as on Windows.
    """
    if not IS_POSIX:
        raise OSError("files cannot be locked on this platform")
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, and wait until it is free. Windows opens no folder."""
    with _opened_folder(folder) as descriptor:
        lock_file(descriptor, wait=True)
        yield


def sync_folder(folder: Path) -> None:
    """Write to the disk which files a folder has. Windows opens no folder."""
    with _opened_folder(folder) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _opened_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def opened_again(descriptor: int) -> IO[bytes]:
    """Open the file of a descriptor to read it, also if that one only writes.

    Raises:
        OSError: the platform has no /proc.
    """
    return Path(f"/proc/self/fd/{descriptor}").open("rb")


def yield_cpu() -> None:
    """Let other processes run."""
    os.sched_yield()


def is_root() -> bool:
    """Whether this process runs as root; on Windows it does not."""
    return IS_POSIX and os.geteuid() == 0


def unprivileged() -> Account:
    """Return the user as whom programs run that refuse to run as root."""
    return pwd.getpwnam("nobody")


def is_appending(descriptor: int) -> bool:
    """Whether writes go to the end of the file, wherever that is by then."""
    return IS_POSIX and bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND)


@contextmanager
def key_by_key(terminal: int) -> Iterator[None]:
    """Let a terminal deliver each key at once, and restore it."""
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def poll(descriptor: int, events: int, timeout: float | None) -> int:
    """Wait for events of a descriptor, in seconds, or for errors; return which there are."""
    poller = select.poll()
    poller.register(descriptor, events)
    found = poller.poll(None if timeout is None else timeout * 1000)
    return found[0][1] if found else 0


def wait_readable(files: Sequence[Any], timeout: float | None) -> None:
    """Wait until one of some sockets can be read, in seconds."""
    if not hasattr(select, "poll"):
        select.select(files, [], [], timeout)
        return
    poller = select.poll()  # it also takes descriptors above 1023
    for file in files:
        poller.register(file, select.POLLIN)
    poller.poll(None if timeout is None else max(0.0, timeout * 1000))


def unread(descriptor: int) -> int:
    """Return how many bytes of a pipe its reader has not taken."""
    count = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(count, sys.byteorder)
