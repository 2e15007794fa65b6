"""Directories without a session: removed at start, and nothing else is."""

from __future__ import annotations

from pathlib import Path

from clawdforge.processes.orphans import remove_orphans


def test_only_what_has_a_row_is_kept(tmp_path: Path) -> None:
    """A closed or unknown session's directory goes with all in it; strangers' files go too."""
    for name in ("open", "closed", "unknown"):
        (tmp_path / name / "work").mkdir(parents=True)
        (tmp_path / name / "work" / "notes").write_text("x")
    (tmp_path / "stray").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "open")
    assert remove_orphans(tmp_path, {"open"}) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["open"]
    assert (tmp_path / "open" / "work" / "notes").exists()


def test_nothing_there_is_nothing_to_do(tmp_path: Path) -> None:
    """A first start has no such folder."""
    assert remove_orphans(tmp_path / "missing", set()) == 0
