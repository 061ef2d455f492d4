"""The demo's consumer, a process of its own: ``python -m durable_notify.demo.worker``.

Prints a line for each message before it acknowledges it. If it is told to stop within a batch, it
prints ``"mid-batch"`` and waits to be killed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading

from .._sync.consumer.consumer import Consumer
from .names import GROUP, LEASE, TOPIC, UNACKNOWLEDGED


def say(value: object) -> None:
    """Print a line of JSON that the demo reads at once."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def end_with_parent() -> None:
    """End when the demo has ended, in any way: its end of the pipe closes."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Consume; with a number other than 0, only so many messages."""
    dsn, until_empty, stop_at = sys.argv[1], sys.argv[2] == "until-empty", int(sys.argv[3])
    threading.Thread(target=end_with_parent, daemon=True).start()
    # It starts before anything is published, which is intended here.
    logging.getLogger("durable_notify").setLevel(logging.ERROR)
    # No polling: wake-ups alone must suffice.
    with Consumer(
        dsn, group=GROUP, topics=[TOPIC], lease=LEASE, poll_interval=None, until_empty=until_empty
    ) as consumer:
        say("ready")
        for number, message in enumerate(consumer, 1):
            say([message.payload["n"], message.payload["event"]])
            if number == stop_at:
                say("mid-batch")
                threading.Event().wait()
            if not stop_at or number <= stop_at - UNACKNOWLEDGED:
                message.ack()


if __name__ == "__main__":
    main()
