"""``clawdforge setup``: install acpx (asked for, the Claude parts) into the runtime directory."""

from __future__ import annotations

import json
import os
from functools import partial

import click

CLAUDE_LICENCE = (
    "Claude Code is proprietary: (c) Anthropic PBC, all rights reserved; its use is subject to "
    "https://www.anthropic.com/legal/commercial-terms"
)


@click.command
@click.option(
    "--with",
    "extras",
    type=click.Choice(["claude"]),
    multiple=True,
    help="Also install the Claude CLI and its ACP adapter (proprietary, about 500 MB).",
)
@click.option("--json", "is_json", is_flag=True, help="Print what is there as JSON.")
def setup(extras: tuple[str, ...], is_json: bool) -> None:
    """Install acpx from our lock file into the runtime directory (CLAWDFORGE_RUNTIME_DIR).

    Does nothing when it is there already. Two at once do no harm. Nothing global is touched.
    """
    from clawdforge.processes.runtime import Part, check_acpx, ensure_runtime, node_version
    from clawdforge.settings import load_config

    config = load_config(os.environ)
    say = partial(click.echo, err=True)
    parts: list[Part] = ["acpx"]
    if "claude" in extras:
        say(CLAUDE_LICENCE)
        parts.append("claude")
    found = [ensure_runtime(config.runtime_dir, part, say) for part in parts]
    check_acpx(found[0])
    packages = {name: version for part in found for name, version in part.packages.items()}
    if is_json:
        click.echo(json.dumps({"node": node_version(), "packages": packages}))
        return
    click.echo(f"node {node_version()}")
    for name, version in packages.items():
        click.echo(f"{name} {version}")
