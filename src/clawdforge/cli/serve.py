"""``clawdforge serve``: the service in the foreground."""

from __future__ import annotations

import os
import sys

import click


@click.command
def serve() -> None:
    """Serve in the foreground, with the log on stderr.

    Prints one line with its URL when it is ready. SIGTERM or Ctrl-C lets turns in progress finish
    (CLAWDFORGE_DRAIN_SECS), then exits 0; a second one stops at once.
    """
    from clawdforge.fitting import calm_collector
    from clawdforge.logs import configure_logs
    from clawdforge.server import print_ready, run_service
    from clawdforge.settings import load_config

    def announce(url: str) -> None:
        calm_collector()  # what there is by now stays
        print_ready(url)

    config = load_config(os.environ)
    configure_logs(config.log)
    sys.exit(run_service(config, announce=announce))
