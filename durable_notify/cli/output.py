"""Standard output that knows which lines its reader has taken."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING

from .._core import posix
from .._core.callables import StopConsumer
from .errors import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Closed", "Output"]

#: How long to wait for a pipe's reader after each line, in seconds.
PATIENCE = 0.25
#: A write of at most this size never waits if poll() says that there is room.
PIECE = posix.PIPE_BUF


class Closed(StopConsumer):
    """The reader of the output has ended, or nothing more may be written.

    A BaseException, so that a consumer takes it for its end and not for a handler's failure.
    """


class Output:
    """Standard output, without a buffer.

    A line is written into a pipe when its reader has taken the one before. So it is known which
    lines a reader that ends (``head -3``) has not taken, and their messages can be released. It
    does not wait for a slow reader; the pipe then fills as any other.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise Failure("standard output is closed")
        self._fd = sys.stdout.fileno()
        mode = os.fstat(self._fd).st_mode
        self._is_pipe = stat.S_ISFIFO(mode) and posix.IS_POSIX
        self._is_file = stat.S_ISREG(mode)
        self._has_reader = self._is_pipe or stat.S_ISSOCK(mode)
        self._keeps_pace = True
        self._stopped = False
        self._is_first = True

    def write(self, line: bytes) -> None:
        """Write a line. Raises Closed if it was not taken, or not written whole.

        Raises:
            OSError: it cannot be written; no part of it is left in a file.
        """
        rest = memoryview(line)
        try:
            if self._is_first:
                self._is_first = False
                self._end_line()
            while rest:
                if self._is_pipe:
                    self._wait_for_room()
                rest = rest[os.write(self._fd, rest[:PIECE] if self._is_pipe else rest) :]
        except BrokenPipeError:
            raise Closed from None
        except OSError:
            self._take_back(len(line) - len(rest))
            raise
        if self._is_pipe:
            self._wait_for_reader()

    def _take_back(self, written: int) -> None:
        """Remove half a line from a file, because another process would append its line to it."""
        if self._is_file and written:
            end = os.fstat(self._fd).st_size
            if (
                os.lseek(self._fd, 0, os.SEEK_CUR) == end
            ):  # otherwise another process writes there too
                os.ftruncate(self._fd, end - written)
                os.lseek(self._fd, end - written, os.SEEK_SET)

    def _end_line(self) -> None:
        """End the line that a killed process has left in the file that we append to."""
        if not (self._is_file and os.fstat(self._fd).st_size):
            return
        with contextlib.suppress(OSError), posix.opened_again(self._fd) as file:
            file.seek(-1, os.SEEK_END)
            ended = file.read(1) == b"\n"
            if not ended and posix.is_appending(self._fd):
                os.write(self._fd, b"\n")

    def when_closed(self, action: Callable[[], None]) -> None:
        """Call ``action`` when the output's reader has ended, even while nothing is written."""
        if self._has_reader:
            threading.Thread(target=self._watch, args=(action,), daemon=True).start()

    def stop(self) -> None:
        """Make a write that waits for its reader raise Closed."""
        self._stopped = True

    def _watch(self, action: Callable[[], None]) -> None:
        while not self._broken(None):
            pass
        action()

    def _broken(self, timeout: float | None) -> bool:
        """Wait until the reader has ended; return whether it has."""
        return bool(posix.poll(self._fd, 0, timeout))  # errors and hang-ups alone

    def _wait_for_room(self) -> None:
        while not (events := posix.poll(self._fd, select.POLLOUT, 0.1)):
            if self._stopped:
                raise Closed
        if events & select.POLLERR:
            raise Closed

    def _wait_for_reader(self) -> None:
        until = time.monotonic() + (PATIENCE if self._keeps_pace else 0)
        turns = 0
        while posix.unread(self._fd):
            turns += 1
            if time.monotonic() >= until:
                self._keeps_pace = False
                return
            if turns < 50:  # noqa: PLR2004 - most readers take it at once
                posix.yield_cpu()
            elif self._broken(0.001):
                if posix.unread(self._fd):
                    raise Closed
                return  # it has taken the line, and ended
        self._keeps_pace = True
