"""``clawdforge serve`` on a disk and a clock that can be told to go wrong.

Run by the harness, never by an operator. The service is the real one; only the VFS under SQLite and
the function that tells the time are ours, so neither the system's disk nor its clock is touched.
Orders come as JSON lines on stdin (``{"disk": "full"}``, ``{"clock": 3600}``), and each is answered
with one line on stdout. They are read by a thread, so that they are obeyed whatever the event loop
is at.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from functools import partial
from typing import Any

from clawdforge import server
from clawdforge.app import open_service
from clawdforge.logs import configure_logs
from clawdforge.settings import load_config
from clawdforge.testing.bad_disk import BadDisk


class ShiftedClock:
    """Unix seconds, and by how much they are wrong."""

    def __init__(self) -> None:
        self.offset_secs = 0

    def now(self) -> int:
        """What the service takes for the time."""
        return int(time.time()) + self.offset_secs


def obey(orders: Any, disk: BadDisk, clock: ShiftedClock) -> None:  # noqa: ANN401 - any text stream
    """Read orders to their end."""
    for line in orders:
        order = json.loads(line)
        if "disk" in order:
            disk.fault = order["disk"]
        if "clock" in order:
            clock.offset_secs += order["clock"]
        os.write(1, b"done\n")


def main() -> None:
    """Serve."""
    disk, clock = BadDisk(), ShiftedClock()
    threading.Thread(target=obey, args=(sys.stdin, disk, clock), daemon=True).start()
    server.open_service = partial(open_service, now=clock.now)  # type: ignore[attr-defined]  # as tests do
    config = load_config(os.environ)
    configure_logs(config.log)
    sys.exit(server.run_service(config))


if __name__ == "__main__":
    main()
