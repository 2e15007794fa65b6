"""``clawdforge doctor``: is everything there that serving needs? One line a check."""

from __future__ import annotations

import json
import sys

import click


@click.command
@click.option("--json", "is_json", is_flag=True, help="Print the findings as JSON.")
def doctor(is_json: bool) -> None:
    """Check Node, acpx, agents (with a real handshake), data directory, leftovers and limits.

    Exits 1 if any check failed; the remedy stands beside each failure.
    """
    import attrs

    from clawdforge.cli.checks import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not is_json:
            click.echo(str(finding))
    if is_json:
        click.echo(json.dumps([attrs.asdict(finding) for finding in findings]))
    sys.exit(any(finding.state == "failed" for finding in findings))
