"""The command ``clawdforge``; its errors are one clear line and an exit code, never a traceback.

Exit codes: 0 done, 1 failed, 2 wrong usage or wrong settings. Nothing but click is imported until
a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from clawdforge import __version__
from clawdforge.cli.demo import demo
from clawdforge.cli.doctor import doctor
from clawdforge.cli.serve import serve
from clawdforge.cli.setup import setup
from clawdforge.cli.token import token

CLICKS_OWN = (click.ClickException, click.Abort, click.exceptions.Exit)
"""Click's own ways to end a command, ``--help`` among them."""


class OneLineErrors(click.Group):
    """A group whose commands' own errors (ClawdforgeError) are one line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  # click's signature
        """Run a command."""
        try:
            return super().invoke(ctx)
        except CLICKS_OWN:
            raise
        except Exception as error:
            from clawdforge.errors import ClawdforgeError, WrongConfiguration

            found: BaseException = error
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            if not isinstance(found, ClawdforgeError):
                raise
            click.echo(f"clawdforge: {found}", err=True)
            sys.exit(2 if isinstance(found, WrongConfiguration) else 1)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def clawdforge() -> None:
    """Host coding agents for the apps of a house, lab or company, behind one HTTP service.

    Settings come from the environment (CLAWDFORGE_...), then from the TOML file that
    CLAWDFORGE_CONFIG names. Begin with: clawdforge demo
    """


for command in (demo, serve, setup, doctor, token):
    clawdforge.add_command(command)
