"""Starts commands: new processes, or for `python -m` of a preloaded module a fork of an interpreter that has it.

The interpreter is a process of its own (`ecs_queue.runner.preload`), so that importing the modules cannot affect the
runner.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from ecs_queue.runner.alarm import Alarm, wait_until_readable
from ecs_queue.runner.preload import Forked, ForkRequest, Ready, receive_frame, send_frame
from ecs_queue.runner.processes import NOT_EXECUTABLE, StartFailure, kill_children, start_process

#: How long the imports may take, counted from the start.
_IMPORT_SECONDS = 120.0
_FORK_SECONDS = 30.0
#: Variables that an interpreter, or its libraries, read when they start; Airflow reads most of its own while it is
#: imported.
_START_VARIABLES = ("PYTHON", "LD_", "LC_", "LANG", "HOME", "AIRFLOW_", "_AIRFLOW_")
#: The exceptions: what the executor gives to each task. Airflow's tasks read them when they run.
_LATE_VARIABLES = ("AIRFLOW_IS_EXECUTOR_CONTAINER", "AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__MULTI_TEAM")


class NewProcesses:
    """`Starter` that starts each command as a new process."""

    own_processes: Sequence[int] = ()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """See `Starter`."""
        return start_process(command, environment)

    def may_wait(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """See `Starter`."""
        del command, environment
        return False

    def wait(self, alarm: Alarm) -> None:
        """See `Starter`. No start waits for anything."""


class ForkServer:
    """`Starter` that forks preloaded programs. When that fails, it says so and starts new processes from then on."""

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """Begin to import the modules, in another process.

        Args:
            modules: Their names.
            environment: The container's, without the runner's variables.
            log: Gets a sentence about each module that is refused, and each variable that prevents a fork.
        """
        self._modules = list(modules)
        self._environment = dict(environment)
        self._log = log
        self._is_ready = False
        self._named_variables: set[str] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._spawn()

    @property
    def own_processes(self) -> Sequence[int]:
        """See `Starter`."""
        return () if self._process is None else (self._process.pid,)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """See `Starter`."""
        if not self._can_fork(command, environment) or not self._await_imports() or command[2] not in self._modules:
            return start_process(command, environment)
        differing = self._find_differing(environment)
        if differing:
            self._explain_new_process(command[2], differing)
            return start_process(command, environment)
        if not _may_reach_a_program(command, environment):  # a new process reports how that fails
            return start_process(command, environment)
        if self._has_ended():
            self._give_up()
            return start_process(command, environment)
        assert self._connection is not None
        try:
            send_frame(self._connection, ForkRequest(list(command[2:]), dict(environment)))
            forked = receive_frame(self._connection, Forked)
        except (OSError, ValueError):
            forked = None
        if forked is None or not forked.pid:
            # The program may have begun: it must not be started a second time.
            self._give_up()
            kill_children()
            raise StartFailure(NOT_EXECUTABLE, f"{command[0]!r} could not be forked")
        return forked.pid

    def may_wait(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """See `Starter`."""
        return not self._is_ready and self._can_fork(command, environment)

    def wait(self, alarm: Alarm) -> None:
        """See `Starter`."""
        assert self._connection is not None
        descriptor = self._connection.fileno()
        seconds = max(0.0, self._deadline - time.monotonic())
        if alarm.fileno() not in wait_until_readable([descriptor, alarm.fileno()], seconds):
            self._read_ready()

    def _can_fork(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a command is a preloaded program of this interpreter."""
        if self._connection is None or len(command) < 3 or command[1] != "-m" or command[2] not in self._modules:
            return False
        return is_this_python(command[0], environment)

    def _find_differing(self, environment: Mapping[str, str]) -> list[str]:
        """Return the variables of a command that would make a new process start in another way than a fork."""
        names = [
            name
            for name in environment.keys() | self._environment.keys()
            if name.startswith(_START_VARIABLES) and name not in _LATE_VARIABLES
        ]
        return sorted(name for name in names if environment.get(name) != self._environment.get(name))

    def _explain_new_process(self, module: str, names: Sequence[str]) -> None:
        """Log each variable once: a queue that sets it for all requests gains nothing from preloading."""
        new = sorted(set(names) - self._named_variables)
        if new:
            self._named_variables.update(new)
            self._log(
                f"runner_preload: {module} starts as a new process, because the request sets {', '.join(new)} in "
                "another way than the container: what all requests share belongs into the task definition"
            )

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-m", "ecs_queue.runner.preload", str(theirs.fileno()), *self._modules],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a signal to the runner's group is not for it
            )
        self._process.returncode = 0  # reaped by `reap`
        self._connection = ours
        self._deadline = time.monotonic() + _IMPORT_SECONDS

    def _await_imports(self) -> bool:
        """Wait for the modules. Return whether any can be forked."""
        while self._connection is not None and not self._is_ready:
            self._read_ready()
        return self._is_ready

    def _read_ready(self) -> None:
        """Note what has become of the modules, once that is known; start again without one that is refused."""
        assert self._connection is not None
        self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
        try:
            ready = receive_frame(self._connection, Ready)
        except (OSError, ValueError):
            ready = None
        if ready is None:
            self._give_up()
        elif ready.refused:
            self._modules.remove(ready.refused)
            self._log(f"runner_preload: {ready.refused} is not preloaded: {ready.reason}")
            self._end_process()
            if self._modules:
                self._spawn()
        else:
            self._is_ready = True
            self._connection.settimeout(_FORK_SECONDS)

    def _has_ended(self) -> bool:
        """Whether the process has gone: it sends nothing unasked."""
        assert self._connection is not None
        return bool(wait_until_readable([self._connection.fileno()], 0.0))

    def _give_up(self) -> None:
        self._log(
            "runner_preload: the interpreter with the modules ended or does not answer; commands are new processes now"
        )
        self._is_ready = False
        self._end_process()

    def _end_process(self) -> None:
        """Close the connection, which ends the process. If it hangs, it is killed after the next command."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._process = None


def _may_reach_a_program(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether these are arguments and variables that the kernel passes to a program."""
    if any(not name or "=" in name for name in environment):
        return False
    try:
        return not any(b"\0" in os.fsencode(text) for text in (*command, *environment, *environment.values()))
    except UnicodeEncodeError:
        return False


def is_this_python(program: str, environment: Mapping[str, str]) -> bool:
    """Return whether a command's program is the runner's own interpreter, with the same packages."""
    path = shutil.which(program, path=environment.get("PATH", os.defpath))
    # A virtual environment's interpreter is a link: its directory decides which packages it has.
    return (
        path is not None
        and os.path.dirname(os.path.abspath(path)) == os.path.dirname(sys.executable)
        and os.path.realpath(path) == os.path.realpath(sys.executable)
    )
