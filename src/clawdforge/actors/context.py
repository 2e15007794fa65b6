"""What every session actor is given, and the one bound they share. Values only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from clawdforge.actors.feed import Feeds
from clawdforge.actors.starts import Starts
from clawdforge.actors.workload import Workload
from clawdforge.config import Config
from clawdforge.domain.files import FileShelf
from clawdforge.domain.ports import Launcher, Store

LEDGER_SECS: Final = 15.0
"""How long an actor waits for the ledger: its own busy timeout of 5 s, three times."""


@attrs.frozen
class SessionContext:
    """The settings, the ports, the clock, and what all sessions share: work, starts."""

    config: Config
    store: Store
    launcher: Launcher
    now: Callable[[], int]
    files: FileShelf
    workload: Workload = attrs.field(factory=Workload)
    starts: Starts = attrs.field()

    @starts.default
    def _as_configured(self) -> Starts:
        return Starts(self.config)

    feeds: Feeds = attrs.field(init=False)

    @feeds.default
    def _make_feeds(self) -> Feeds:
        return Feeds(self.store, self.config.event_log_bytes)
