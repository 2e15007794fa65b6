"""Naming attached files in a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge import acpx_runner
from clawdforge.protocol.prompt import format_prompt_with_files


@pytest.mark.parametrize("paths", [None, [], ()])
def test_without_files_the_prompt_is_unchanged(paths: list[str] | None) -> None:
    """No files: the very same text."""
    assert format_prompt_with_files(" do it\n", paths) == " do it\n"


@given(prompt=st.text(min_size=1), paths=st.lists(st.text(min_size=1), min_size=1))
def test_paths_come_first_and_the_prompt_last(prompt: str, paths: list[str]) -> None:
    """Every path stands before the prompt, in order, and the text ends with the prompt."""
    text = format_prompt_with_files(prompt, paths)
    assert text.endswith(prompt)
    head = text.removesuffix(prompt)
    for path in paths:
        assert path in head
        head = head[head.index(path) + len(path) :]


def test_the_kept_name_takes_paths() -> None:
    """Importers of the old name may pass Path objects."""
    text = acpx_runner._format_prompt_with_files("look", [Path("a.txt"), "b.txt"])
    assert text == "Attached files:\n- a.txt\n- b.txt\n\nlook"
    assert acpx_runner._parse_ndjson('{"a": 1}\n\nnot json\n{"b": 2}') == [{"a": 1}, {"b": 2}]
