"""The entry: ``clawdforge …`` and ``python -m clawdforge …``."""

from __future__ import annotations

from clawdforge.cli.root import clawdforge


def main() -> None:
    """Run the command line and exit."""
    clawdforge(prog_name="clawdforge")


if __name__ == "__main__":
    main()
