"""Words of a program, made fit to be shown: one line, bounded, no host path, no secret. Pure.

What a child says on its way down (npm's last lines, an agent's error) is the best hint there is,
and it may hold anything. So it passes here before it becomes the ``reason`` of an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

LIMIT: Final = 300
"""Characters of one reason: enough for a sentence, too few for a dump."""

SHORTEST_SECRET: Final = 6
"""A hidden value shorter than this would only blacken ordinary words."""

_ELSEWHERE: Final = "…"
_CREDENTIALS: Final = re.compile(r"(?<=://)[^\s/@]+@")
_FILE_URL: Final = re.compile(r"file://\S+")
_PATH: Final = re.compile(r"(?<![\w.:/@-])~?(?:/[\w.@+~=-]+)+/?")


def plain_reason(text: str, *, hidden: Iterable[str] = (), limit: int = LIMIT) -> str:
    """``text`` as one line of at most ``limit`` characters.

    Absolute paths, credentials in addresses, and every value of ``hidden`` become an ellipsis.
    """
    text = " ".join(_clean(_hide(text, hidden)).split())
    return text if len(text) <= limit else text[: limit - 1] + _ELSEWHERE


def plain_lines(text: str, *, hidden: Iterable[str] = (), limit: int) -> str:
    """The end of ``text``, as lines, at most ``limit`` characters; cleaned like a reason."""
    lines = [_clean(line).strip() for line in _hide(text, hidden).splitlines()]
    kept = "\n".join(filter(None, lines))
    return kept if len(kept) <= limit else _ELSEWHERE + kept[1 - limit :]


def _hide(text: str, hidden: Iterable[str]) -> str:
    for secret in hidden:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, _ELSEWHERE)
    return text


def _clean(text: str) -> str:
    return _PATH.sub(_ELSEWHERE, _CREDENTIALS.sub("", _FILE_URL.sub(_ELSEWHERE, text)))
