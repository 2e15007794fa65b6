"""Names for the ids that travel through the program, and the rules for their text.

Ids are made where randomness is allowed (``app``); in here they are only words.
"""

from __future__ import annotations

import re
from typing import Final, NewType

AppName = NewType("AppName", str)
"""The name under which a token was minted: the tenant."""

NOBODY: Final = AppName("")
"""The app of what no app has asked for, or not yet. No token has this name."""

SessionId = NewType("SessionId", str)
"""Unguessable (192 bits, URL-safe), at least 16 characters, never used again."""

SESSION_ID_BYTES: Final = 24
"""Random bytes of a session id: 192 bits, 32 characters."""

AgentName = NewType("AgentName", str)
"""The name of an agent profile."""

APP_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
AGENT_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/\[\]-]{0,127}")
