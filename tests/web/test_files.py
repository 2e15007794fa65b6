"""Uploads: every form that fits, every one that does not, and what is left of either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest
import trio

from clawdforge.config import Config
from clawdforge.errors import StoreUnavailable
from clawdforge.store.memory import MemoryStore
from clawdforge.web import inflow as inflow_module
from clawdforge.web.app import make_edge
from clawdforge.web.service import NewTurn
from tests.web.stage import (
    ADMIN,
    KITCHEN,
    OTHER_TOKEN,
    SESSION,
    TOKEN,
    Answered,
    FakeService,
    ask,
    bearer,
    make_service,
    open_site,
    read_response,
    read_to_end,
    request_bytes,
)
from tests.web.test_routes import assert_problem

BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
TURN = f"/sessions/{SESSION}/turn"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """One part of a form, with the line that opens it."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


HELLO = part("file", b"hello", "hello.txt")


async def upload(
    service: FakeService, body: bytes, headers: Mapping[str, str] | None = None
) -> Answered:
    """Post a body as a form."""
    headers = bearer() | {"Content-Type": FORM} | dict(headers or {})
    return await ask(make_edge(service), "POST", "/files", headers=headers, body=body)


@pytest.fixture
async def service(tmp_path: Path) -> FakeService:
    """A service with a place for files, at most 1000 bytes each."""
    config = Config(admin_token=ADMIN, max_upload_bytes=1000)
    return await make_service(config=config, folder=tmp_path / "files")


def left(service: FakeService) -> list[str]:
    """The names of what lies in the folder."""
    return [path.name for path in service.folder.iterdir()] if service.folder.exists() else []


async def test_an_upload_answers_with_its_token(service: FakeService) -> None:
    """Exactly the contract's fields; the file is there for its app."""
    answer = await upload(service, form(HELLO))
    assert answer.status == 200
    assert set(answer.json) == {"file_token", "ttl_secs", "size"}
    assert (answer.json["ttl_secs"], answer.json["size"]) == (3600, 5)
    token = answer.json["file_token"]
    assert token.startswith("ff_")
    (path,) = await service.files.claim(KITCHEN, [token], hold_secs=0)
    assert path.read_bytes() == b"hello"
    assert path.suffix == ".txt"


@pytest.mark.parametrize(
    "parts", [(part("ttl_secs", b"60"), HELLO), (HELLO, part("ttl_secs", b"60"))]
)
async def test_parts_in_any_order(service: FakeService, parts: tuple[bytes, ...]) -> None:
    """``ttl_secs`` may stand before the file or behind it."""
    assert (await upload(service, form(*parts))).json["ttl_secs"] == 60


@pytest.mark.parametrize("name", [None, "", "../../../etc/passwd", "C:\\x\\y.exe", "a\tb.txt"])
async def test_a_clients_name_is_no_path(service: FakeService, name: str | None) -> None:
    """Whatever the client calls its file, it lies in our folder under our name."""
    answer = await upload(service, form(part("file", b"x", name)))
    assert answer.status == 200
    (only,) = left(service)
    assert only.partition(".")[0].isalnum()


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"\r\n--a-boundar", b"x--a-boundary", b"\r\n"])
async def test_any_bytes_are_a_file(service: FakeService, data: bytes) -> None:
    """Nothing in a file is read as form, short of the boundary itself."""
    answer = await upload(service, form(part("file", data, "x")))
    assert answer.json["size"] == len(data)
    (name,) = left(service)
    assert (service.folder / name).read_bytes() == data


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (form(), ["$.file"]),
        (form(part("ttl_secs", b"60")), ["$.file"]),
        (form(HELLO, part("ttl_secs", b"59")), ["$.ttl_secs"]),
        (form(HELLO, part("ttl_secs", b"86401")), ["$.ttl_secs"]),
        (form(HELLO, part("ttl_secs", b"soon")), ["$.ttl_secs"]),
        (form(HELLO, part("ttl_secs", b"")), ["$.ttl_secs"]),
        (form(HELLO, part("ttl_secs", b"60"), part("ttl_secs", b"60")), ["$.ttl_secs"]),
        (form(HELLO, HELLO), ["$.file"]),
        (form(HELLO, part("other", b"1"), part("ttl_secs", b"1")), ["$.other", "$.ttl_secs"]),
        (form(HELLO, part("other", b"1" * 2000)), ["$.other"]),
        (form(HELLO, *(part(f"p{number}", b"") for number in range(30))), ["$"]),
        (form(HELLO)[:-4], ["$"]),
        (form(HELLO)[:60], ["$"]),
        (b"", ["$"]),
        (b"hello", ["$"]),
        (b"--a-boundary\r\n\r\nx\r\n--a-boundary--\r\n", ["$"]),
        (form(b"--a-boundary\r\nContent-Disposition: form-data\r\n\r\nx\r\n"), ["$"]),
        (form(b"--a-boundary\r\nX: " + b"y" * 200_000 + b"\r\n\r\nx\r\n"), ["$"]),
    ],
)
async def test_forms_that_do_not_fit(service: FakeService, body: bytes, paths: list[str]) -> None:
    """422 with the path of every fault, and nothing is left."""
    service.config = attrs.evolve(service.config, max_upload_bytes=1_000_000)
    answer = await upload(service, body)
    assert_problem(answer, 422)
    assert [fault["path"] for fault in answer.json["faults"]] == paths
    assert left(service) == []


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/mixed; boundary=a-boundary",
        'multipart/form-data; boundary="\u00fc"',
    ],
)
async def test_a_body_that_is_no_form(service: FakeService, content_type: str) -> None:
    """422 before anything is read."""
    answer = await upload(service, form(HELLO), {"Content-Type": content_type})
    assert_problem(answer, 422, "multipart/form-data")
    assert left(service) == []


async def test_a_file_over_the_cap(service: FakeService) -> None:
    """413 says the cap, which is itself allowed; nothing is left."""
    assert (await upload(service, form(part("file", b"x" * 1000, "x")))).status == 200
    (kept,) = left(service)
    answer = await upload(service, form(part("file", b"x" * 1001, "x")))
    assert_problem(answer, 413, "1000 bytes")
    assert left(service) == [kept]


async def test_a_form_that_says_it_is_over_the_cap(service: FakeService) -> None:
    """It is refused before a file is made for it; so is one that is long and holds little."""
    answer = await upload(service, form(part("file", b"x" * 70_000, "x")))
    assert_problem(answer, 413, "1000 bytes")
    assert not service.folder.exists()


async def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    """503, without a path."""
    (tmp_path / "files").write_text("in the way")
    answer = await upload(await make_service(folder=tmp_path / "files"), form(HELLO))
    assert_problem(answer, 503, "files cannot be kept")
    assert answer.header("retry-after") == "1"
    assert str(tmp_path) not in answer.body.decode()


async def test_a_ledger_that_is_away(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, and no file is left."""

    async def refuse(*_: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(MemoryStore, "add_file", refuse)
    assert_problem(await upload(service, form(HELLO)), 503, "ledger")
    assert left(service) == []


# --- in turns -------------------------------------------------------------------------------------


async def test_a_turn_takes_its_apps_files(service: FakeService) -> None:
    """A token that was just given out is good for a turn."""
    token = (await upload(service, form(HELLO))).json["file_token"]
    body = {"prompt": "read", "files": [token, token]}
    answer = await ask(make_edge(service), "POST", TURN, headers=bearer(), body=body)
    assert answer.status == 200
    (asked,) = service.asked
    assert isinstance(asked, NewTurn)
    assert asked.files == (token, token)


async def test_another_apps_file_is_like_none(service: FakeService) -> None:
    """422 naming the place, byte for byte like a token that never was or is over."""
    theirs = (await upload(service, form(HELLO), bearer(OTHER_TOKEN))).json["file_token"]
    mine = (await upload(service, form(HELLO))).json["file_token"]
    for token, row in service.store.files.items():
        if row.app_name == KITCHEN:
            service.store.files[token] = attrs.evolve(row, expires_at=1000)
    answers = []
    for token in (theirs, mine, "ff_never", "", TOKEN):
        body = {"prompt": "read", "files": [token]}
        answers.append(await ask(make_edge(service), "POST", TURN, headers=bearer(), body=body))
    assert_problem(answers[0], 422)
    assert [fault["path"] for fault in answers[0].json["faults"]] == ["$.files[0]"]
    assert all(answer == answers[0] for answer in answers)


# --- over real sockets ----------------------------------------------------------------------------


def upload_head(length: int, extra: str = "") -> bytes:
    """The head of an upload of that many bytes."""
    head = request_bytes("POST", "/files", extra=f"Content-Type: {FORM}\r\n{extra}")
    return head[:-2] + f"Content-Length: {length}\r\n\r\n".encode()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a file system tells nobody of."""
    with trio.fail_after(5):
        while not is_so():  # noqa: ASYNC110  # a file system has no event
            await trio.sleep(0.01)


async def test_a_client_that_leaves_mid_upload_leaves_nothing(service: FakeService) -> None:
    """Its file goes with it."""
    body = form(part("file", b"x" * 900, "x"))
    async with open_site(service) as site:
        async with await site.connect() as stream:
            await stream.send_all(upload_head(len(body)) + body[:-100])
            await until(lambda: bool(left(service)))
        await until(lambda: not left(service))


async def test_bytes_are_on_the_disk_as_they_arrive(service: FakeService) -> None:
    """Long before the body has ended."""
    service.config = attrs.evolve(service.config, max_upload_bytes=1_000_000)
    body = form(part("file", b"x" * 500_000, "x"))
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(upload_head(len(body)) + body[:400_000])
        await until(lambda: bool(left(service)))
        path = service.folder / left(service)[0]
        await until(lambda: path.stat().st_size > 300_000)
        await stream.send_all(body[400_000:])
        status, answer = await read_response(stream)
        assert (status, b'"size":500000' in answer) == (200, True)


async def test_a_body_that_stops_arriving(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 after a while, and nothing is left."""
    monkeypatch.setattr(inflow_module, "PIECE_SECS", 0.2)
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(upload_head(1000) + form(HELLO)[:90])
        with trio.fail_after(5):
            assert (await read_response(stream))[0] == 408
        assert left(service) == []


@pytest.mark.parametrize(("token", "status"), [(None, 401), (TOKEN, 413)])
async def test_a_refused_client_that_writes_to_the_end_reads_its_refusal(
    service: FakeService, token: str | None, status: int
) -> None:
    """However much it writes before it reads, and the connection is good for the next request."""
    body = form(part("file", b"x" * 8_000_000, "x"))
    head = upload_head(len(body))
    if token is None:
        head = head.replace(TOKEN.encode(), b"cf_nobody")
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(head + body)
        assert (await read_response(stream))[0] == status
        await stream.send_all(request_bytes("GET", "/sessions"))
        assert (await read_response(stream))[0] == 200


async def test_a_handler_that_takes_nothing_stops_the_client(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk does not take is not read from the socket: memory does not grow."""
    gate = trio.Event()
    taken = 0
    real = inflow_module.Inflow.__anext__

    async def slow(self: inflow_module.Inflow) -> bytes:
        nonlocal taken
        await gate.wait()
        taken += 1
        return await real(self)

    monkeypatch.setattr(inflow_module.Inflow, "__anext__", slow)
    service.config = attrs.evolve(service.config, max_upload_bytes=100_000_000)
    body = form(part("file", b"x" * 50_000_000, "x"))
    async with open_site(service) as site, await site.connect() as stream:
        with trio.move_on_after(1) as patience:
            await stream.send_all(upload_head(len(body)) + body)
        assert patience.cancelled_caught, "50 MB were read though nobody took any"
        gate.set()
    assert taken < 50_000_000 / 65_536


async def test_a_client_that_asks_first_is_told_to_go_on(service: FakeService) -> None:
    """``Expect: 100-continue`` (RFC 9110, 10.1.1), as curl sends it with large forms."""
    body = form(HELLO)
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(upload_head(len(body), "Expect: 100-continue\r\n"))
        with trio.fail_after(5):
            assert bytes(await stream.receive_some(100)).startswith(b"HTTP/1.1 100")
        await stream.send_all(body)
        assert (await read_response(stream))[0] == 200


async def test_a_chunked_form(service: FakeService) -> None:
    """A form of unknown length is read to its end."""
    head = request_bytes("POST", "/files", extra=f"Content-Type: {FORM}\r\n")
    chunked = head[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    body = form(HELLO)
    async with open_site(service) as site, await site.connect() as stream:
        await stream.send_all(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        assert (await read_response(stream))[0] == 200
        await stream.send_eof()
        assert await read_to_end(stream) == b""
