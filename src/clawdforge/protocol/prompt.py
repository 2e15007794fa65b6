"""How attached files are named to an agent: in words, in front of the prompt. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def format_prompt_with_files(prompt: str, paths: Sequence[object] | None) -> str:
    """The prompt with the paths of its files before it; without files the prompt as it is.

    The text ends with the prompt either way, so that the caller's words have the last word.
    """
    if not paths:
        return prompt
    listed = "\n".join(f"- {path}" for path in paths)
    return f"Attached files:\n{listed}\n\n{prompt}"
