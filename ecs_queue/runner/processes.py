"""The processes of commands: starts, signals and reaps them, and kills what a command leaves behind.

The runner is the first process of its container, or at least a subreaper (Linux): every process whose parent has ended
becomes its child. So a descendant of a command is found whatever it did to detach itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from ecs_queue.runs.runner_options import OPTIONS_VARIABLE

#: The exit codes of a shell for a program that it does not find, and for one that it cannot execute.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_LAST_STREAM = 2
#: A process that survives SIGKILL for this long (it hangs in the kernel) is left alone.
_KILL_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 0.02
#: All that a process may handle: Python ignores SIGPIPE, and what starts the runner may ignore others.
_RESET_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class Ended(NamedTuple):
    """A child that has ended. Signal n gives the exit code 128 + n."""

    pid: int
    exit_code: int


class StartFailure(Exception):  # noqa: N818 - the command's end, and no fault of the runner
    """The program could not be started."""

    def __init__(self, exit_code: int, cause: str) -> None:
        super().__init__(cause)
        self.exit_code = exit_code


def adopt_orphans() -> bool:
    """Make orphaned descendants children of this process. False: they become init's, as everywhere but on Linux."""
    return _call_prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Hide the environment and memory of this process from other processes of its user, but not from root (Linux)."""
    _call_prctl(_PR_SET_DUMPABLE, 0)


def keep_descriptors() -> None:
    """Keep commands from inheriting the open files of this process, except its streams (Linux)."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > _LAST_STREAM:
                with suppress(OSError):  # that of the listing
                    os.set_inheritable(int(name), False)


def open_streams() -> None:
    """Open what is closed of this process's input and outputs: its pipes and its connection would get their numbers."""
    for descriptor in range(_LAST_STREAM + 1):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file that is opened gets the lowest free number
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def restore_streams() -> None:
    """Make the output streams blocking again: a command may have made them non-blocking for all that share them."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            os.set_blocking(descriptor, True)


def enter_directory(path: str) -> bool:
    """Make a directory this process's own; return False when that is impossible: it was removed, say."""
    try:
        os.chdir(path)
    except OSError:
        return False
    return True


def container_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the container.

    Args:
        environ: Of this process: also those of the runner, two of which are secrets, and what Python itself has set.
    """
    variables = {name: value for name, value in environ.items() if not name.startswith(OPTIONS_VARIABLE)}
    if b"LC_CTYPE" not in _initial_names():  # Python sets it where there is no locale (PEP 538)
        variables.pop("LC_CTYPE", None)
    return variables


def _initial_names() -> set[bytes]:
    """The names of the variables that this process was started with; LC_CTYPE among them where that is not known."""
    try:
        with open("/proc/self/environ", "rb") as environment:
            return {variable.partition(b"=")[0] for variable in environment.read().split(b"\0")}
    except OSError:
        return {b"LC_CTYPE"}


def _call_prctl(option: int, value: int) -> bool:
    with suppress(AttributeError, OSError):  # not Linux
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    return False


def start_process(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a program in a session of its own, with this process's output and no input; return its process id.

    No signal is ignored or blocked in it, whatever this process got from its parent.

    Raises:
        StartFailure: It cannot be started.
    """
    program = command[0] if command else ""
    refusal: Exception = FileNotFoundError(errno.ENOENT, "")
    try:
        for path in _candidates(program, environment):
            try:
                # No thread of this process can block it, and no memory is copied: like vfork and exec.
                return os.posix_spawn(
                    path,
                    list(command),
                    environment,
                    file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_RESET_SIGNALS,
                )
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:  # as execvp: another directory of PATH may have one that can be executed
                refusal = error
    except (OSError, ValueError) as error:
        refusal = error
    raise _explain_start_failure(program, refusal)


def _candidates(program: str, environment: Mapping[str, str]) -> list[str]:
    """The paths at which a program may be: with the command's own PATH."""
    if not program:
        return []
    if "/" in program:
        return [program]
    paths = (os.path.join(directory, program) for directory in os.get_exec_path(environment))
    return [path for path in paths if os.path.exists(path)]  # each attempt takes as long as a start


def _explain_start_failure(program: str, error: Exception) -> StartFailure:
    number = getattr(error, "errno", None)
    if not program or number in (errno.ENOENT, errno.ENOTDIR):
        return StartFailure(NOT_FOUND, f"{program!r} is not found")
    cause = os.strerror(number) if number else f"an argument is no text for a program ({type(error).__name__})"
    return StartFailure(NOT_EXECUTABLE, f"{program!r} cannot be executed: {cause}")


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that was not reaped yet."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap(command: int = 0) -> Ended | None:
    """Reap the children that have ended; return the end of the command's first process, when it is among them.

    The rest of its process group is killed at once: where nothing adopts orphans, `kill_children` does not find it.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == command:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(command, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(status)
            return Ended(command, 128 - code if code < 0 else code)


def kill_children(spared: Collection[int] = ()) -> bool:
    """Kill every child and every descendant that thereby becomes one; return whether none is left.

    Args:
        spared: Children that stay.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    pause = 0.0005
    while True:
        has_children = _reap_ended()
        found = find_children() - set(spared) if has_children else set()
        if not found:
            return True
        if time.monotonic() > deadline:
            return False
        for pid in found:
            send_signal(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(_MAX_PAUSE_SECONDS, pause * 2)


def _reap_ended() -> bool:
    """Reap what has ended; return whether there are other children."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True


def find_children() -> set[int]:
    """The children of this process, ended ones among them; none without /proc.

    A list that grows while it is read may lack the last entries. A process becomes a child when its parent ends; an
    ancestor of it is a child already, and stays in the list until it is reaped here.
    """
    found = set()
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children", "rb", buffering=0) as children:
                found |= set(map(int, children.read().split()))
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN, or a thread that has ended
        return _find_children_by_parent()
    return found


def _find_children_by_parent() -> set[int]:
    """The same, by the parents of all processes: slow where there are many."""
    own = b"%d" % os.getpid()
    found = set()
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb", buffering=0) as stat:
                    # The name, in parentheses, may hold anything; behind it are the state and the parent.
                    if stat.read().rpartition(b")")[2].split()[1] == own:
                        found.add(int(name))
    return found


class TemporaryDirectory:
    """The private directory of one command. A container whose file system is read-only has none."""

    def __init__(self, name: str) -> None:
        """Make it in the container's own TMPDIR."""
        path = os.path.join(os.environ.get("TMPDIR") or "/tmp", name)  # noqa: S108 - of mode 0700, under a random name
        try:
            os.mkdir(path, 0o700)
        except OSError:
            path = ""
        self.environment = {"TMPDIR": path} if path else {}

    def remove(self) -> None:
        """Remove it with its contents, or what the command has put in its place, as far as the runner's user may."""
        for path in self.environment.values():
            remove_tree(path)


def remove_tree(path: str) -> None:
    """Remove a file, a link or a directory with everything in it, as far as this user may. Never follows a link."""
    try:
        os.rmdir(path)  # mostly it is empty
    except OSError:
        with suppress(OSError):  # a directory
            os.unlink(path)
        with suppress(RecursionError):  # before Python 3.13, of a tree that is deep
            shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            _flatten(path)


def _flatten(path: str) -> None:
    """Remove a tree with read-only directories, or one that is deeper than calls, paths and open files may be.

    What is in its directories is moved up to the top, and removed there.
    """
    kept: set[str] = set()
    number = 0
    _make_writable(path)
    while names := _list(path) - kept:
        for name in names:
            inner = os.path.join(path, name)
            if os.path.islink(inner) or not os.path.isdir(inner):
                with suppress(OSError):
                    os.unlink(inner)
            else:
                _make_writable(inner)
                for child in _list(inner):
                    number += 1
                    _move(os.path.join(inner, child), os.path.join(path, f"{number}~{os.path.basename(path)}"))
                with suppress(OSError):
                    os.rmdir(inner)
            if os.path.lexists(inner):
                kept.add(name)
    with suppress(OSError):
        os.rmdir(path)


def _list(path: str) -> set[str]:
    try:
        return set(os.listdir(path))
    except OSError:
        return set()


def _move(path: str, place: str) -> None:
    if not os.path.islink(path) and os.path.isdir(path):
        _make_writable(path)  # a directory that is moved is written: the entry of its parent
    with suppress(OSError):
        os.rename(path, place)


def _make_writable(path: str) -> None:
    """Let this user remove what is in a directory: some programs make their files' directories read-only."""
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
