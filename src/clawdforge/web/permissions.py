"""The routes of permission requests: what waits for somebody's word, and the word."""

from __future__ import annotations

from typing import Any, Final

from clawdforge.domain.questions import PendingPermission
from clawdforge.errors import PermissionDecided, PermissionNotFound, SessionNotFound
from clawdforge.web.answers import Done, PermissionList, PermissionView
from clawdforge.web.bodies import DecidePermission, Nothing
from clawdforge.web.operations import Call, Operation
from clawdforge.web.sessions import read_session_id


async def list_permissions(call: Call[Nothing]) -> PermissionList:
    """What waits now, oldest first."""
    waiting = await call.service.list_permissions(read_session_id(call), call.app)
    views = [PermissionView.of(pending) for pending in waiting]
    return PermissionList(views, len(views))


async def decide_permission(call: Call[DecidePermission]) -> Done:
    """Choose one of the options that the agent offers."""
    await call.service.decide_permission(
        read_session_id(call), call.app, call.path["request_id"], call.asked.option_id
    )
    return Done()


EXAMPLE: Final[dict[str, Any]] = {
    "request_id": "0b9b6a1e-8a43-4f53-9f0c-1d6f3a0c8f11",
    "turn_index": 2,
    "tool_call": {"toolCallId": "call-1", "title": "Write list.txt", "kind": "edit"},
    "options": [
        {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
        {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
    ],
    "expires_at": 1_790_000_180,
}

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/sessions/<session_id>/permissions",
        gate="app",
        handle=list_permissions,
        summary="List the permission requests that wait for an answer",
        answer=PermissionList([PermissionView.of(PendingPermission(**EXAMPLE))], 1),
        refusals=[SessionNotFound()],
    ),
    Operation(
        method="POST",
        path="/sessions/<session_id>/permissions/<request_id>",
        gate="app",
        handle=decide_permission,
        summary="Answer a permission request",
        asks=DecidePermission,
        example={"option_id": "allow"},
        refusals=[SessionNotFound(), PermissionNotFound(), PermissionDecided("clock")],
    ),
)
