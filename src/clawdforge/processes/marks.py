"""Marks: the environment variable by which every process of ours can be told. Values only.

A mark names the data directory, the incarnation of the service that started the process, and the
tree (one warden and all below it). A mark is never used for two trees, so that killing one tree by
its mark cannot touch another.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

import attrs

MARK_NAME: Final = "CLAWDFORGE_MARK"
"""The environment variable. Its value is ``<data directory id>:<incarnation>:<tree>``."""

_WORD: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _is_word(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    """Refuse what could not be read back from the joined text."""
    if not _WORD.fullmatch(value):
        raise ValueError(f"{attribute.name} must be 1 to 64 letters, digits, '_' or '-'")


@attrs.frozen
class Incarnation:
    """One life of a service on one data directory, from taking its lock to its end.

    Both fields are 1 to 64 letters, digits, ``_`` or ``-`` (ValueError). ``data_dir_id`` is the
    same for every life on that directory; ``name`` is never used again.
    """

    data_dir_id: str = attrs.field(validator=_is_word)
    name: str = attrs.field(validator=_is_word)

    def mark_tree(self) -> Mark:
        """A new mark for a new tree (64 random bits)."""
        return Mark(self, secrets.token_hex(8))


@attrs.frozen
class Mark:
    """The name of one process tree."""

    incarnation: Incarnation
    tree: str = attrs.field(validator=_is_word)

    def __str__(self) -> str:
        return f"{self.incarnation.data_dir_id}:{self.incarnation.name}:{self.tree}"


def parse_mark(text: str) -> Mark | None:
    """Read the variable's value; None when it is not one of ours."""
    words = text.split(":")
    if len(words) != 3 or not all(_WORD.fullmatch(word) for word in words):
        return None
    return Mark(Incarnation(words[0], words[1]), words[2])
