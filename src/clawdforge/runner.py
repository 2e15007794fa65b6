"""Names that importers of earlier versions use, kept: what a run answers, and what runs it.

Nothing of ours imports this module. New code: :mod:`clawdforge.domain.runs`.
"""

from __future__ import annotations

from clawdforge.domain.runs import Runner, RunResult

__all__ = ["RunResult", "Runner"]
