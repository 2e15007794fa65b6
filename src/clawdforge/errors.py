"""Every error of clawdforge on one page, grouped by whose fault it is.

No HTTP in here: :mod:`clawdforge.web.problems` gives each class its status, and a test fails if one
has none. Fields are typed and the prose is made from them, so that no caller's text, token or host
path gets into an error by accident. Foreign exceptions stop at the adapter that met them
(``raise AgentNotStarted(...) from error``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs


class ClawdforgeError(Exception):
    """The root of all errors of ours. Never raised itself."""


# --- the caller's ---------------------------------------------------------------------------------


class CallerError(ClawdforgeError):
    """The request cannot be served as it was made; sending it again will not help."""


@attrs.frozen
class Fault:
    """One thing wrong with a request: where (``$.meta.name`` style path) and what."""

    path: str
    message: str


@attrs.define
class InvalidRequest(CallerError):
    """The request does not fit. Carries every fault found, not only the first."""

    faults: Sequence[Fault]

    def __str__(self) -> str:
        return "; ".join(f"{fault.path}: {fault.message}" for fault in self.faults)


class NotAuthenticated(CallerError):
    """No bearer, a malformed one or an unknown one; compare :class:`NotAllowed`."""

    def __str__(self) -> str:
        return "a valid bearer token is required"


@attrs.define
class NotAllowed(CallerError):
    """The caller is known, or its address is, and may not do this. ``reason`` is safe to show."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class SessionNotFound(CallerError):
    """No such session for this app. Another app's session is exactly this, never NotAllowed."""

    def __str__(self) -> str:
        return "no such session"


class TurnNotFound(CallerError):
    """The session has no such turn."""

    def __str__(self) -> str:
        return "no such turn"


class IdempotencyKeyReused(CallerError):
    """The idempotency key stands for another request: its fields differ."""

    def __str__(self) -> str:
        return "this idempotency key was used with other fields"


@attrs.define
class IdempotencyKeyTaken(CallerError):
    """The key already stands for turn ``turn_index`` or another session: look there.

    Raised by the ledger and answered by the service; a caller meets it never.
    """

    turn_index: int | None = None

    def __str__(self) -> str:
        return "a request under this idempotency key is in progress"


class PermissionNotFound(CallerError):
    """The session has no such permission request, or its agent has gone."""

    def __str__(self) -> str:
        return "no such permission request"


@attrs.define
class PermissionDecided(CallerError):
    """The permission request was decided before: ``by`` a caller, the clock or a cancel."""

    by: str

    def __str__(self) -> str:
        return f"this permission request has been decided already (by {self.by})"


class UnknownFileToken(InvalidRequest):
    """File tokens that this app does not hold, or whose lifetime is over: nobody learns which."""

    @classmethod
    def at(cls, indexes: Iterable[int]) -> UnknownFileToken:
        """For the tokens at these places of the request's ``files``."""
        words = "no such file, or it has expired"
        return cls([Fault(f"$.files[{index}]", words) for index in indexes])


@attrs.define
class AppNotFound(CallerError):
    """No app (token name) of that name."""

    name: str

    def __str__(self) -> str:
        return f"no token is named {self.name!r}"


@attrs.define
class AppNameTaken(CallerError):
    """An app (token name) of that name exists."""

    name: str

    def __str__(self) -> str:
        return f"a token named {self.name!r} exists already"


@attrs.define
class SessionClosed(CallerError):
    """The session was open once and is closed; ``cause`` is the audit's word for why."""

    cause: str = "closed"

    def __str__(self) -> str:
        return f"the session is closed ({self.cause})"


@attrs.define
class SessionBusy(CallerError):
    """As many turns as allowed wait on this session, or its mailbox is full."""

    limit: int

    def __str__(self) -> str:
        return f"{self.limit} turns already wait on this session; try again when one has ended"


class BodyTooSlow(CallerError):
    """The request's body stopped arriving. Compare :class:`TooSlow`, which is ours."""

    def __str__(self) -> str:
        return "the body did not arrive in time"


@attrs.define
class TooLarge(CallerError):
    """``what`` (body, prompt, upload) is over its cap of ``limit_bytes``."""

    what: str
    limit_bytes: int

    def __str__(self) -> str:
        return f"the {self.what} is larger than {self.limit_bytes} bytes"


# --- capacity -------------------------------------------------------------------------------------


@attrs.define
class CapacityError(ClawdforgeError):
    """Nothing is wrong with the request; it came at the wrong time. Try again after a while."""

    retry_after_secs: int


@attrs.define
class PoolFull(CapacityError):
    """As many sessions live as are allowed (``limit``)."""

    limit: int

    def __str__(self) -> str:
        return f"all {self.limit} session slots are taken"


@attrs.define
class RunsFull(CapacityError):
    """As many runs as are allowed wait in line (``limit``)."""

    limit: int

    def __str__(self) -> str:
        return f"{self.limit} runs already wait in line"


@attrs.define
class ShuttingDown(CapacityError):
    """The server is draining: it finishes what it has and takes nothing new."""

    def __str__(self) -> str:
        return "the server is draining"


@attrs.define
class CircuitOpen(CapacityError):
    """The agent kept failing to start and is left alone for a while. ``reason``: the last one's.

    Compare :class:`AgentNotStarted`, which says that it was tried.
    """

    agent: str
    reason: str

    def __str__(self) -> str:
        return f"agent {self.agent!r} keeps failing to start: {self.reason}"


@attrs.define
class TooManyStarts(CapacityError):
    """Others were starting for so long that this agent's own start never began."""

    def __str__(self) -> str:
        return "too many agents are starting"


@attrs.define
class MachineFull(CapacityError):
    """The machine, or what we may have of it, is used up. ``what``: memory, open files, ..."""

    what: str

    def __str__(self) -> str:
        return f"this server has too little left: {self.what}"


# --- the agent's ----------------------------------------------------------------------------------


@attrs.define
class AgentError(ClawdforgeError):
    """The agent, or the process that hosts it, failed. ``agent`` is the profile's name."""

    agent: str


@attrs.define
class AgentNotStarted(AgentError):
    """The agent did not start or shake hands. ``remedy`` is a command or setting that mends it.

    ``is_callers_choice``: the agent works, but not with what the caller chose (its model).
    """

    reason: str
    remedy: str | None = None
    is_callers_choice: bool = False

    def __str__(self) -> str:
        mend = f" ({self.remedy})" if self.remedy else ""
        return f"agent {self.agent!r} did not start: {self.reason}{mend}"


@attrs.define
class AgentExited(AgentError):
    """The agent's process, or its host's, ended while something was asked of it.

    ``was_asked`` is False when the prompt certainly never reached it: it may be asked again.
    """

    reason: str
    was_asked: bool = True

    def __str__(self) -> str:
        return f"agent {self.agent!r} ended during the turn: {self.reason}"


@attrs.define
class AgentMisbehaved(AgentError):
    """The agent answered with an error of its own, or broke the protocol; its process lives on."""

    reason: str

    def __str__(self) -> str:
        return f"agent {self.agent!r} failed: {self.reason}"


@attrs.define
class AgentTimedOut(AgentError):
    """The turn passed its deadline of ``timeout_secs``, waiting in line included."""

    timeout_secs: float

    def __str__(self) -> str:
        return f"agent {self.agent!r} did not finish within {self.timeout_secs:g} s"


@attrs.define
class AgentNeverSpoke(AgentError):
    """The agent said nothing in the first ``limit_secs`` of its turn; see AgentTimedOut."""

    limit_secs: float

    def __str__(self) -> str:
        return f"agent {self.agent!r} said nothing in its first {self.limit_secs:g} s"


@attrs.define
class AgentFellSilent(AgentError):
    """The agent had begun and then said nothing for ``limit_secs``; see AgentTimedOut."""

    limit_secs: float

    def __str__(self) -> str:
        return f"agent {self.agent!r} said nothing for {self.limit_secs:g} s"


@attrs.define
class AgentNotResumable(AgentError):
    """The agent cannot load or resume this session's conversation; a new one is never faked."""

    def __str__(self) -> str:
        return f"agent {self.agent!r} cannot resume this session's conversation"


# --- ours -----------------------------------------------------------------------------------------


class ServiceError(ClawdforgeError):
    """Something of ours is not there; nothing is wrong with the request or the agent."""


class SessionGone(ServiceError):
    """The actor behind a ref has ended before it could answer. Compare :class:`SessionClosed`."""

    def __str__(self) -> str:
        return "the session's actor has ended"


@attrs.define
class StoreUnavailable(ServiceError):
    """The ledger cannot be read or written just now (``reason``: full, locked, read-only, ...)."""

    reason: str

    def __str__(self) -> str:
        return f"the ledger is not available: {self.reason}"


@attrs.define
class FilesUnavailable(ServiceError):
    """Uploaded files cannot be written or read just now (``reason``: the disk is full, ...)."""

    reason: str

    def __str__(self) -> str:
        return f"files cannot be kept: {self.reason}"


@attrs.define
class NotReady(ServiceError):
    """The service runs and cannot do its work yet; ``missing`` says what it lacks, in words."""

    missing: Sequence[str]

    def __str__(self) -> str:
        return f"not ready: {'; '.join(self.missing)}"


class TooSlow(ServiceError):
    """A request passed the bound of its route: something of ours did not answer in time."""

    def __str__(self) -> str:
        return "the service did not answer in time"


@attrs.define
class WrongConfiguration(ServiceError):
    """A setting is wrong; ``setting`` names it as the operator wrote it.

    ``others`` are more of the kind, found in the same reading: all are named, one a line.
    """

    setting: str
    message: str
    others: Sequence[WrongConfiguration] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.setting}: {self.message}", *map(str, self.others)])


@attrs.define
class RuntimeNotInstalled(ServiceError):
    """A ``part`` (acpx, claude) could not be installed. ``reason`` is safe to show.

    ``remedy`` is the command that mends it, once what ``reason`` says is out of the way.
    """

    part: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.part} is not installed: {self.reason} ({self.remedy})"


class DataDirectoryBusy(ServiceError):
    """Another service holds the data directory."""

    def __str__(self) -> str:
        return "another clawdforge holds this data directory"
