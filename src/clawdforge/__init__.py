"""clawdforge: coding agents behind one HTTP service. Only the version lives here."""

__version__ = "0.3.0"
