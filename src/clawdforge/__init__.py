"""clawdforge: coding agents behind one HTTP service. This module holds the version and nothing else."""

__version__ = "0.3.0"
