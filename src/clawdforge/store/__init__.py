"""The ledger: :mod:`.sqlite` for real, :mod:`.memory` for tests with a virtual clock.

Both implement :class:`clawdforge.domain.ports.Store` under one suite of tests, and nobody outside
needs more than ``open_sqlite_store`` and ``MemoryStore``. Knows neither actors nor HTTP.
"""
