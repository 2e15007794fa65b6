"""Names that importers of earlier versions use, kept: the NDJSON reader and two helpers of a turn.

Nothing of ours imports this module. New code: :mod:`clawdforge.protocol`.
"""

from __future__ import annotations

from clawdforge.protocol.acp import stop_reason_of as _extract_stop_reason
from clawdforge.protocol.ndjson import parse_ndjson as _parse_ndjson
from clawdforge.protocol.prompt import format_prompt_with_files as _format_prompt_with_files

__all__ = ["_extract_stop_reason", "_format_prompt_with_files", "_parse_ndjson"]
