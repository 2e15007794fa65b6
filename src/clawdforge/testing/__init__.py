"""What other programs need to test against the real app, offline. Tested like the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clawdforge.testing.fake_launcher import FakeLauncher
    from clawdforge.testing.fake_runner import FakeRunner
    from clawdforge.testing.server import RunningServer, running_server

__all__ = ["FakeLauncher", "FakeRunner", "RunningServer", "running_server"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - as the language has it
    """Import on first use: the demo agent in this folder must start without Trio."""
    if name == "FakeLauncher":
        from clawdforge.testing import fake_launcher as module  # noqa: PLC0415
    elif name == "FakeRunner":
        from clawdforge.testing import fake_runner as module  # type: ignore[no-redef]  # noqa: PLC0415
    elif name in __all__:
        from clawdforge.testing import server as module  # type: ignore[no-redef]  # noqa: PLC0415
    else:
        raise AttributeError(name)
    return getattr(module, name)
