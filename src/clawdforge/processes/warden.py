"""The warden: a tiny program between the service and each child, so that no process outlives it.

Run as ``python -I -S warden.py LIFELINE_FD OPEN_FILES -- ARGV...``. The rule: *when the lifeline
ends, SIGTERM comes or the child exits, every descendant is killed, and only then does the warden
exit.* The lifeline is a pipe whose write end only the service holds, so it ends with the service,
however that dies. Descendants that detach themselves (``setsid``, double fork) are adopted: the
warden is a child subreaper. Its exit code is the child's, 128+n when signal n ended that, 127 when
its program could not be started; it ends by a signal when it could not do its work. One thread:
the child's death signal fires when the *thread* that forked it ends. Standard library only.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Final, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MORE_LIKELY: Final = 500  # half of all memory counts as if it were the child's
GIVE_UP_SECS: Final = 30.0  # how long to go on killing what does not die (a stuck disk, say)


def prctl(option: int, value: int) -> None:
    """``prctl(2)``. Raises OSError."""
    if ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) != 0:
        raise OSError("prctl")


def exact_environment() -> dict[bytes, bytes]:
    """The environment as it was given: at its start Python adds LC_CTYPE to its own copy."""
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123 (pathlib is slow to import)
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
    return {name: value for name, _, value in pairs}


def become_child(argv: list[str], open_files: int, warden: int) -> NoReturn:
    """In the fork: undo what is the warden's own, and turn into the child's program.

    It leads its own process group but stays in the warden's *session*: a name of the tree that
    survives a changed environment and the warden's own death.
    """
    try:
        os.setpgid(0, 0)
        offer_to_the_kernel()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard))
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == warden:  # else it died before the line above: nothing would end us
            os.execvpe(argv[0], argv, exact_environment())  # noqa: S606 (no shell is the point)
    except (OSError, ValueError) as error:
        os.write(2, f"cannot start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def offer_to_the_kernel() -> None:
    """When memory runs out, let the kernel take this process before the service (proc(5))."""
    with suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+b") as file:  # noqa: PTH123 (pathlib is slow to import)
        score = min(1000, int(file.read()) + MORE_LIKELY)
        file.write(str(score).encode())


def children_of(pid: int) -> list[int]:
    """The children of every thread of ``pid``; none when it has just gone."""
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 (as above)
            with open(f"/proc/{pid}/task/{task}/children", "rb") as file:  # noqa: PTH123 (as above)
                found += map(int, file.read().split())
    return found


def kill_descendants(own_pid: int) -> None:
    """Kill everything below us once; whole groups too, since a fork cannot dodge its group's."""
    queue = children_of(own_pid)
    for pid in queue:  # grows as we go
        queue += children_of(pid)
        with suppress(ProcessLookupError, PermissionError):
            if (group := os.getpgid(pid)) != own_pid:
                os.killpg(group, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)


class Warden:
    """Owns one child: watches, and in the end leaves nothing."""

    def __init__(self, lifeline: int) -> None:
        self.lifeline, self.child = lifeline, 0
        self.child_status: int | None = None
        self.wakeup, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        for number in signal.SIGCHLD, signal.SIGTERM:
            signal.signal(number, lambda *_: None)  # a byte in ``wakeup`` is all we want
        for number in signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP:
            signal.signal(number, signal.SIG_IGN)  # what a terminal sends

    def start(self, argv: list[str], open_files: int) -> None:
        """Fork the child, and let go of its standard streams."""
        own_pid, nowhere = os.getpid(), os.open("/dev/null", os.O_RDWR)
        self.child = os.fork()
        if self.child == 0:
            become_child(argv, open_files, own_pid)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)

    def has_children(self) -> bool:
        """Reap what has ended (orphans too) and say whether any child is left, living or dying."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    self.child_status = ended[1]
        except ChildProcessError:
            return False
        return True

    def watch(self) -> None:
        """Return when it is time to end. Unbounded: the child may live as long as the service."""
        while self.has_children() and self.child_status is None:
            ready = select.select([self.lifeline, self.wakeup], [], [])[0]
            if self.lifeline in ready or signal.SIGTERM in os.read(self.wakeup, 4096):
                return

    def kill_tree(self) -> None:
        """Kill until the kernel says that there is no child left."""
        give_up_at, pause_secs = time.monotonic() + GIVE_UP_SECS, 0.001
        while self.has_children() and time.monotonic() < give_up_at:
            kill_descendants(os.getpid())
            time.sleep(pause_secs)
            pause_secs = min(pause_secs * 2, 0.05)


def main(lifeline: int, open_files: int, argv: list[str]) -> None:
    """Run one child from its start to the end of the last of its descendants."""
    try:
        os.set_inheritable(lifeline, False)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        warden = Warden(lifeline)
        warden.start(argv, open_files)
        warden.watch()
        warden.kill_tree()
        if warden.child_status is not None and not warden.has_children():
            code = os.waitstatus_to_exitcode(warden.child_status)
            os._exit(code if code >= 0 else 128 - code)
    finally:  # we could not do our work
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:])
