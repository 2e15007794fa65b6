"""The route of uploads: a file goes to the disk as it arrives, and its token comes back."""

from __future__ import annotations

from typing import Final

from clawdforge.config import Config
from clawdforge.errors import FilesUnavailable
from clawdforge.web.answers import FileKept
from clawdforge.web.bodies import UploadFile
from clawdforge.web.forms import Form
from clawdforge.web.operations import SHORT_SECS, Call, Link, Operation


async def upload_file(call: Call[Form[UploadFile]]) -> FileKept:
    """Keep a file for runs and turns of the same app. A client that leaves leaves nothing."""
    call.asked.check()
    async with call.service.files.receive(call.app) as upload:
        asked, client_name = await call.asked.read(upload)
        token = await upload.keep(ttl_secs=asked.ttl_secs, client_name=client_name)
    return FileKept(token, asked.ttl_secs, upload.size)


def upload_secs(config: Config) -> float:
    """A slow line may take as long as the longest turn, if something arrives all the time."""
    return config.max_timeout_secs + SHORT_SECS


EXPRESSION: Final = "$response.body#/file_token"

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/files",
        gate="app",
        handle=upload_file,
        summary="Upload a file for runs and turns",
        asks=UploadFile,
        is_form=True,
        bound_secs=upload_secs,
        answer=FileKept("ff_…", 3600, 5),
        refusals=[FilesUnavailable("no space left on device")],
        links=[Link("run_once", body={"prompt": "Read it", "files": [EXPRESSION]})],
    ),
)
