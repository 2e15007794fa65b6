"""``clawdforge demo``: the main job on the embedded agent, over real HTTP, in one process.

The server is the one of ``serve``, on a free loopback port, with its data in a temporary directory;
it has the main thread. A guide runs beside it in a thread of its own, speaks to it as any client
would, and in the end stops it as an operator would: with SIGTERM.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from clawdforge.config import Config


@click.command
@click.option("--keep", "is_kept", is_flag=True, help="Leave it serving; print curl lines.")
def demo(is_kept: bool) -> None:
    """Show the whole thing: a server, a session, two turns, and nothing left behind.

    Needs no account and no model. What is missing is installed first, with progress.
    """
    import tempfile
    from pathlib import Path

    from clawdforge.cli.guide import Guide
    from clawdforge.logs import configure_logs
    from clawdforge.processes.runtime import ensure_runtime
    from clawdforge.server import run_service

    with tempfile.TemporaryDirectory(prefix="clawdforge-demo-") as folder:
        config = _configure(Path(folder))
        configure_logs("text", level="warning")
        ensure_runtime(config.runtime_dir, "acpx", lambda line: click.echo(line, err=True))
        guide = Guide(config, is_kept=is_kept)
        code = run_service(config, announce=guide.start)
        guide.finish()
    sys.exit(code or guide.exit_code)


def _configure(folder: Path) -> Config:
    """Defaults, but for the place where the parts of acpx are, which one may have set."""
    import os
    import secrets

    import attrs

    from clawdforge.config import DEMO
    from clawdforge.settings import load_config

    runtime = {name: os.environ.get(name, "") for name in ("CLAWDFORGE_RUNTIME_DIR",)}
    return attrs.evolve(
        load_config(runtime),
        bind="127.0.0.1:0",
        data_dir=folder / "data",
        run_agent=DEMO,
        admin_token=secrets.token_urlsafe(24),
    )
