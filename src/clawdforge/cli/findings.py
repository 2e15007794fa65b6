"""What a check of ``clawdforge doctor`` answers with. Values only."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen
class Finding:
    """What a check found. ``missing``: an optional part that is not installed; no failure."""

    check: str
    state: Literal["ok", "failed", "missing"]
    detail: str
    remedy: str | None = None

    def __str__(self) -> str:
        remedy = f"  -> {self.remedy}" if self.remedy else ""
        return f"{self.state:<8}{self.check}: {self.detail}{remedy}"
