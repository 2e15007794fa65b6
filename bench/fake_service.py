"""A service with a fake launcher, for measuring what is ours alone.

Run it as ``python -m bench.fake_service``. It prints its URL and its admin token, and serves until
SIGTERM. A first argument names a database to start with.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

import attrs
import trio

from clawdforge.app import open_service
from clawdforge.config import Config
from clawdforge.fitting import claim_process
from clawdforge.listening import bind_listener
from clawdforge.logs import configure_logs
from clawdforge.server import Stopping, serve_until_stopped
from clawdforge.testing.fake_launcher import FakeLauncher

ADMIN = "a-secret-of-the-bench-alone"


async def serve(config: Config) -> None:
    """Serve until told to stop."""
    stopping = Stopping(config)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(stopping.watch_signals, nursery.cancel_scope))
        async with open_service(config, launcher=FakeLauncher()) as service:
            await serve_until_stopped(
                service,
                bind_listener(config.bind),
                stopping,
                lambda url: print(f"ready {url}#{ADMIN}", flush=True),
            )
        nursery.cancel_scope.cancel()


def main(database: str) -> None:
    """Take the database, if there is one, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with tempfile.TemporaryDirectory(prefix="clawdforge-bench-") as folder:
        config = attrs.evolve(
            Config(),
            bind="127.0.0.1:0",
            data_dir=Path(folder),
            admin_token=ADMIN,
            max_live_sessions=2500,
        )
        if database:
            shutil.copyfile(database, config.database_path)
        configure_logs(config.log)
        trio.run(serve, claim_process(config))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
