"""A server in a process of its own, so that its memory can be weighed: run as a program.

It prints one line of JSON (where it is, its tokens, a session, its data directory) and serves
until its standard input is closed.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import httpx2 as httpx
import structlog

from clawdforge.config import Config
from clawdforge.testing import running_server

CONFIG = Config(
    max_live_sessions=20,
    turn_queue=2,
    turn_timeout_secs=5,
    max_body_bytes=64 * 1024,
    max_upload_bytes=64 * 1024,
    cancel_grace_secs=0.2,
    log="json",
)


def main() -> None:
    """Serve until nobody wants it any more."""
    # Ten thousand lines that nobody reads would fill the pipe.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with running_server(CONFIG) as server:
        token = server.mint("kitchen")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=server.base_url, headers=headers) as app:
            session = app.post("/sessions", json={"agent": "demo"}).json()["session_id"]
            file = app.post("/files", files={"file": ("a.txt", b"milk")}).json()["file_token"]
        told = {
            "pid": os.getpid(),
            "port": int(server.base_url.rpartition(":")[2]),
            "token": token,
            "admin": server.admin_token,
            "session": session,
            "file": file,
            "folder": str(server.config.data_dir),
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
