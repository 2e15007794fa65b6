"""Multipart forms (RFC 7578) with one file in them, read as they arrive: the file is never kept.

The parsing is werkzeug's, which knows no I/O; the bounds are ours. The part ``file`` goes to an
upload as it comes, whether or not the client gives it a name; every other part is a short text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, Generic, TypeVar

import attrs
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Event, Field, File, MultipartDecoder, NeedData

from clawdforge.domain.files import Upload
from clawdforge.errors import Fault, InvalidRequest, TooLarge
from clawdforge.web.wire import Reader, under

Body = TypeVar("Body")

FILE: Final = "file"
"""The name of the part that holds the file."""

SLICE_BYTES: Final = 64 * 1024
KEPT_BYTES: Final = 2 * SLICE_BYTES
"""The most that the parser keeps: a part's headers, or what may turn out to be a boundary."""

FORM_ROOM: Final = 64 * 1024
"""What a form may be longer than the file in it."""

MAX_PARTS: Final = 20
MAX_TEXT_BYTES: Final = 1024


@attrs.frozen(kw_only=True)
class Form(Generic[Body]):
    """A form that is about to arrive, to be read as a ``kind``, its file at most ``max_bytes``."""

    kind: type[Body]
    reader: Reader
    content_type: str
    declared_bytes: int | None
    max_bytes: int
    pieces: AsyncIterator[bytes]

    def check(self) -> bytes:
        """What can be said before anything has arrived; answers the boundary.

        Raises InvalidRequest when it is no form, TooLarge when it says so itself.
        """
        media_type, options = parse_options_header(self.content_type)
        boundary = options.get("boundary", "")
        is_plain = boundary.isascii() and boundary.isprintable()
        if media_type != "multipart/form-data" or not is_plain or not 0 < len(boundary) <= 70:
            message = "the body must be a form (multipart/form-data with a boundary)"
            raise InvalidRequest([Fault("$", message)])
        if self.declared_bytes is not None and self.declared_bytes > self.max_bytes + FORM_ROOM:
            raise TooLarge("upload", self.max_bytes)
        return boundary.encode()

    async def read(self, upload: Upload) -> tuple[Body, str | None]:
        """Write the file to ``upload``; answers the form, and the client's name for the file.

        Raises InvalidRequest with every fault, TooLarge, BodyTooSlow, and what ``upload`` raises.
        """
        parts = Parts(self.check(), upload)
        taken = 0
        async for piece in self.pieces:
            taken += len(piece)
            if taken > self.max_bytes + FORM_ROOM:
                raise TooLarge("upload", self.max_bytes)
            for start in range(0, len(piece), SLICE_BYTES):
                await parts.take(piece[start : start + SLICE_BYTES])
        await parts.take(None)
        return self.reader.read_form(self.kind, parts.texts), parts.client_name


class Parts:
    """The parts of one form, as they come. ``texts`` are the names and texts of them all."""

    def __init__(self, boundary: bytes, upload: Upload) -> None:
        self.texts: list[tuple[str, str]] = []
        self.client_name: str | None = None
        self._decoder = MultipartDecoder(boundary, max_form_memory_size=KEPT_BYTES)
        self._upload = upload
        self._name = ""
        self._text = bytearray()
        self._is_upload = False

    async def take(self, data: bytes | None) -> None:
        """Take the next bytes; None is the end. Raises InvalidRequest when it is no form."""
        self._feed(data)
        while not isinstance(event := self._next(), (NeedData, Epilogue)):
            match event:
                case Field(name=name) | File(name=name):
                    self._begin(name, event)
                case Data():
                    await self._add(event)
                case _:  # what stands before the first part
                    pass

    def _feed(self, data: bytes | None) -> None:
        try:
            self._decoder.receive_data(data)
        except RequestEntityTooLarge:
            raise _malformed() from None

    def _next(self) -> Event:
        try:
            return self._decoder.next_event()
        except (ValueError, LookupError):  # broken syntax, an encoding that does not exist
            raise _malformed() from None

    def _begin(self, name: str | None, part: Field | File) -> None:
        if not name or len(self.texts) >= MAX_PARTS:
            raise _malformed()
        is_first = not any(known == FILE for known, _ in self.texts)
        self._is_upload = name == FILE and is_first
        self._name = name
        self._text.clear()
        if self._is_upload and isinstance(part, File):
            self.client_name = part.filename

    async def _add(self, data: Data) -> None:
        if self._is_upload:
            if data.data:
                await self._upload.write(data.data)
        elif self._name != FILE:
            self._text += data.data
            if len(self._text) > MAX_TEXT_BYTES:
                raise InvalidRequest([Fault(under("$", self._name), "is too long")])
        if not data.more_data:
            self.texts.append((self._name, self._text.decode("utf-8", "replace")))


def _malformed() -> InvalidRequest:
    return InvalidRequest([Fault("$", "the body is not a well-formed form")])
