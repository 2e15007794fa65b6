"""The shelf of uploaded files: what is kept, who may have it, and that nothing else stays."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from clawdforge.domain.files import pick_extension
from clawdforge.domain.ports import Store
from clawdforge.errors import FilesUnavailable, StoreUnavailable, TooLarge, UnknownFileToken
from clawdforge.store import files as files_module
from clawdforge.store.files import DiskShelf
from clawdforge.store.memory import MemoryStore

from .examples import LAB, SHOP, from_outside


@attrs.define
class Clock:
    """Unix seconds that a test sets."""

    seconds: int = 1000

    def now(self) -> int:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """The shelf's clock."""
    return Clock()


@pytest.fixture
def shelf(store: Store, tmp_path: Path, clock: Clock) -> DiskShelf:
    """A shelf over either ledger, with a cap of 100 bytes."""
    return DiskShelf(store=store, folder=tmp_path / "files", max_bytes=100, now=clock.now)


async def put(shelf: DiskShelf, data: bytes = b"hello", name: str | None = "a.txt") -> str:
    """Upload a file for an hour; its token."""
    async with shelf.receive(LAB) as upload:
        await upload.write(data)
        return await upload.keep(ttl_secs=3600, client_name=name)


def contents(shelf: DiskShelf) -> list[bytes]:
    """What lies in the folder."""
    return sorted(path.read_bytes() for path in shelf.folder.iterdir())


async def test_what_was_uploaded_is_there(shelf: DiskShelf) -> None:
    """All its bytes, in order, for its owner's eyes only, under a name of ours."""
    async with shelf.receive(LAB) as upload:
        await upload.write(b"one ")
        await upload.write(b"two")
        assert upload.size == 7
        token = await upload.keep(ttl_secs=60, client_name="../../etc/pass wd.Txt")
    assert token.startswith("ff_")
    assert len(token) > 40
    (path,) = await shelf.claim(LAB, [token], hold_secs=0)
    assert path.read_bytes() == b"one two"
    assert path.parent == shelf.folder
    assert path.suffix == ".Txt"
    assert path.stat().st_mode & 0o777 == 0o600
    assert shelf.folder.stat().st_mode & 0o777 == 0o700
    assert token not in path.name


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.txt", ".txt"),
        ("archive.tar.gz", ".gz"),
        (".bashrc", ".bashrc"),
        ("a.b/c", ""),
        ("a.b\\c", ""),
        ("a.txt\n", ""),
        ("a.txt\0", ""),
        ("a.ü", ""),
        ("a." + "x" * 17, ""),
        ("a.", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_only_a_plain_extension_is_kept(name: str | None, extension: str) -> None:
    """Of the client's name nothing else survives."""
    assert pick_extension(name) == extension


async def test_a_token_is_its_apps_alone(shelf: DiskShelf, clock: Clock) -> None:
    """Another app's, an expired and an invented token are refused in the same words."""
    token = await put(shelf)
    with pytest.raises(UnknownFileToken) as foreign:
        await shelf.claim(SHOP, [token], hold_secs=0)
    with pytest.raises(UnknownFileToken) as invented:
        await shelf.claim(SHOP, ["ff_no"], hold_secs=0)
    clock.seconds += 3600
    with pytest.raises(UnknownFileToken) as expired:
        await shelf.claim(LAB, [token], hold_secs=0)
    assert str(foreign.value) == str(invented.value) == str(expired.value)


async def test_every_unknown_token_is_named(shelf: DiskShelf) -> None:
    """By its place in the list, all at once."""
    token = await put(shelf)
    with pytest.raises(UnknownFileToken) as refused:
        await shelf.claim(LAB, ["ff_a", token, "ff_b"], hold_secs=0)
    assert [fault.path for fault in refused.value.faults] == ["$.files[0]", "$.files[2]"]


async def test_a_file_that_was_removed_by_hand_is_unknown(shelf: DiskShelf) -> None:
    """A row without its file opens nothing."""
    token = await put(shelf)
    for path in shelf.folder.iterdir():
        path.unlink()
    with pytest.raises(UnknownFileToken):
        await shelf.claim(LAB, [token], hold_secs=0)


async def test_the_ledger_holds_no_token(database: Path, sqlite_store: Store) -> None:
    """Only its SHA-256."""
    folder = database.parent / "files"
    shelf = DiskShelf(store=sqlite_store, folder=folder, max_bytes=100, now=lambda: 1000)
    token = await put(shelf)
    ((row,),) = from_outside(database, "SELECT * FROM files")
    assert hashlib.sha256(token.encode()).hexdigest() in row
    assert token not in str(row)


async def test_an_upload_that_is_left_leaves_nothing(shelf: DiskShelf) -> None:
    """Left early or cancelled: no file."""
    async with shelf.receive(LAB) as upload:
        await upload.write(b"half")
    with trio.CancelScope() as scope:
        async with shelf.receive(LAB) as upload:
            await upload.write(b"half")
            scope.cancel()
            await trio.sleep_forever()
    assert contents(shelf) == []


async def test_an_upload_over_the_cap_is_refused(shelf: DiskShelf) -> None:
    """The cap is told, and is itself allowed."""
    await put(shelf, b"x" * 100)
    with pytest.raises(TooLarge, match="100 bytes"):
        await put(shelf, b"x" * 101)
    assert contents(shelf) == [b"x" * 100]


async def test_a_row_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    """The ledger is away: the caller hears of it, and the file goes."""
    store = MemoryStore(unavailable="disk full")
    shelf = DiskShelf(store=store, folder=tmp_path / "files", max_bytes=100, now=lambda: 1000)
    with pytest.raises(StoreUnavailable):
        await put(shelf)
    assert contents(shelf) == []


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every write finds the disk full."""

    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/place")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        yield


@pytest.mark.usefixtures("full_disk")
async def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """The error says why and no path."""
    shelf = DiskShelf(store=MemoryStore(), folder=tmp_path / "f", max_bytes=100, now=lambda: 1)
    with pytest.raises(FilesUnavailable, match="no space left") as refused:
        await put(shelf)
    assert "/secret" not in str(refused.value)
    assert contents(shelf) == []


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Something else is in its place."""
    (tmp_path / "files").write_text("in the way")
    shelf = DiskShelf(store=MemoryStore(), folder=tmp_path / "files", max_bytes=9, now=lambda: 1)
    with pytest.raises(FilesUnavailable):
        await put(shelf)


# --- the sweep ------------------------------------------------------------------------------------


async def test_what_is_over_goes_row_and_file(shelf: DiskShelf, clock: Clock) -> None:
    """Not a second before its time; other files stay."""
    await put(shelf, b"old")
    clock.seconds += 1
    young = await put(shelf, b"young")
    assert await shelf.sweep() == 0
    clock.seconds += 3599
    assert await shelf.sweep() == 1
    assert contents(shelf) == [b"young"]
    assert await shelf.claim(LAB, [young], hold_secs=0)


async def test_a_claimed_file_stays_for_as_long_as_it_was_claimed(
    shelf: DiskShelf, clock: Clock
) -> None:
    """A turn that waits in line past its files' end still finds them."""
    token = await put(shelf)
    clock.seconds += 3599
    await shelf.claim(LAB, [token], hold_secs=600.5)
    clock.seconds += 600
    assert await shelf.sweep() == 0
    clock.seconds += 1
    assert await shelf.sweep() == 1


async def test_strays_are_swept_and_uploads_in_progress_are_not(shelf: DiskShelf) -> None:
    """What an earlier life left behind goes; what is being received stays, and can be kept."""
    await put(shelf, b"kept")
    (shelf.folder / "stray.part").write_bytes(b"stray")
    async with shelf.receive(LAB) as upload:
        await upload.write(b"in hand")
        assert await shelf.sweep() == 1
        assert contents(shelf) == [b"in hand", b"kept"]
        token = await upload.keep(ttl_secs=60, client_name=None)
        assert await shelf.sweep() == 0
    assert await shelf.claim(LAB, [token], hold_secs=0)


async def test_an_upload_that_ends_in_the_middle_of_a_sweep_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is written between the look into the folder and the look at the rows."""
    store = MemoryStore()
    shelf = DiskShelf(store=store, folder=tmp_path / "files", max_bytes=100, now=lambda: 1000)
    seen, go_on = trio.Event(), trio.Event()
    real = files_module._names_in

    def look(folder: Path) -> list[str]:
        names = real(folder)
        trio.from_thread.run_sync(seen.set)
        trio.from_thread.run(go_on.wait)
        return names

    monkeypatch.setattr(files_module, "_names_in", look)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, shelf.receive(LAB) as upload:
            nursery.start_soon(shelf.sweep)
            await seen.wait()
            token = await upload.keep(ttl_secs=60, client_name="a.txt")
            go_on.set()
    assert await shelf.claim(LAB, [token], hold_secs=0)


async def test_a_shelf_that_was_never_used_sweeps(shelf: DiskShelf) -> None:
    """No folder, nothing to do."""
    assert await shelf.sweep() == 0
    assert not shelf.folder.exists()
