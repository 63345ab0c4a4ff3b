"""The fork server of a runner: imports modules once, and runs `python -m MODULE` in a fork of itself.

It is a program of its own, `python -m ecs_queue.runner.preload DESCRIPTOR MODULE...`; the descriptor is a socket to the
runner. What it reads and writes there are frames of JSON: first `Ready`, then for each `ForkRequest` a `Forked`.

A fork is a grandchild whose parent ends at once, so the runner, which adopts orphans, becomes its parent. It ends as
any Python program does: it leaves the fork server's loop, and the interpreter waits for threads, runs `atexit`, tears
down the modules, and turns what was raised into the exit status. Only the preloaded modules are left (`quick_end`).

Two new interpreters differ in their random numbers and in their hash seed. Forks differ in the former only.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar

import msgspec

from ecs_queue.error_text import typed_error_text
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.runner.processes import find_children, remove_tree
from ecs_queue.runner.quick_end import QuickEnd

Frame = TypeVar("Frame")
_LENGTH_BYTES = 4
#: How long a new process may take to execute its program.
_EXECUTE_SECONDS = 1.0


class Ready(msgspec.Struct, frozen=True):
    """What has become of the modules.

    Attributes:
        refused: The first module that cannot be preloaded; the process ends then.
        reason: Why.
    """

    refused: str = ""
    reason: str = ""


class ForkRequest(PayloadRepr, msgspec.Struct, frozen=True):
    """What stands behind `python -m`, the module first, and the whole environment of the program."""

    command: list[str]
    environment: dict[str, str]


class Forked(msgspec.Struct, frozen=True):
    """The id of the new process, which is a child of the runner and leads a session; 0: it could not be forked."""

    pid: int


def send_frame(connection: socket.socket, frame: msgspec.Struct) -> None:
    """Send a frame. OSError when the other side has gone."""
    body = msgspec.json.encode(frame)
    connection.sendall(len(body).to_bytes(_LENGTH_BYTES, "big") + body)


def receive_frame(connection: socket.socket, kind: type[Frame]) -> Frame | None:
    """Return the next frame; None when the other side has gone. TimeoutError after the socket's time limit."""
    head = _receive(connection, _LENGTH_BYTES)
    body = _receive(connection, int.from_bytes(head, "big")) if head else b""
    return msgspec.json.decode(body, type=kind) if body else None


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        try:
            chunk = connection.recv(size - len(received))
        except ConnectionResetError:  # it has gone, and had not read everything
            chunk = b""
        if not chunk:
            return b""
        received += chunk
    return bytes(received)


def import_modules(modules: Sequence[str], temporary: str = "") -> Ready:
    """Import modules; return which one fails, or leaves what forks cannot have of their own.

    Args:
        modules: Their names.
        temporary: An empty directory, in which they make their temporary files; "" if that is not known.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:  # noqa: BLE001 - SystemExit, too: a program that is no module
            return Ready(module, f"its import fails: {typed_error_text(error)}"[:500])
        if _count_threads() > 1:
            return Ready(module, "its import starts a thread, which a fork would not have")
        if _has_connection():
            return Ready(module, "its import opens a network connection, which all forks would share")
        if _has_child():
            return Ready(module, "its import starts a process, which would be no child of a fork")
        if temporary and _list(temporary):
            # Mostly they are removed at the end of the program, which is that of the first fork.
            return Ready(module, "its import makes temporary files, which all forks would share")
    return Ready()


def _count_threads() -> int:
    """The threads of this process, those of extensions among them."""
    try:
        return max(threading.active_count(), len(os.listdir("/proc/self/task")))
    except OSError:
        return threading.active_count()


def _has_connection() -> bool:
    """Return whether this process is connected over a network: what a fork sends there confuses the next one."""
    for name in _list("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family != socket.AF_UNIX and found.type == socket.SOCK_STREAM:
                    found.getpeername()
                    return True
        except OSError:  # that of the listing, or not connected
            continue
    return False


def _has_child() -> bool:
    """Return whether this process has a child, except that of `multiprocessing`, which all forks may share."""
    return any(b"multiprocessing.resource_tracker" not in _await_program(pid) for pid in find_children())


def _await_program(pid: int) -> bytes:
    """Return the command line of a child as soon as it executes a program of its own, or does so no more."""
    not_yet = (_read_command_line("self"), b"")
    deadline = time.monotonic() + _EXECUTE_SECONDS
    while (line := _read_command_line(str(pid))) in not_yet and time.monotonic() < deadline:
        time.sleep(0.001)
    return line


def _read_command_line(process: str) -> bytes:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as line:
            return line.read()
    except OSError:
        return b""


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


class ImportedVariables:
    """The environment variables that imports have changed: a new process, which imports them itself, has them, too."""

    def __init__(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Compare the environments before and after the imports."""
        self._before = dict(before)
        self._changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        self._after = dict(after)

    def apply(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a program with these changes, except to what its request has set itself."""
        changed = {name for name in self._changed if environment.get(name) == self._before.get(name)}
        kept = {name: value for name, value in environment.items() if name not in changed}
        return kept | {name: self._after[name] for name in changed if name in self._after}


def serve(connection: socket.socket, variables: ImportedVariables, temporary: str) -> ForkRequest:
    """Fork on each request; return it in the fork, and never in the server, which ends with the connection.

    Args:
        connection: To the runner.
        variables: What forks get beside the variables in their requests.
        temporary: A directory that is removed when the server ends; "" for none.
    """
    directory = os.getcwd()
    while True:
        request = receive_frame(connection, ForkRequest)
        if request is None:
            _end(0, temporary)
        read_end, write_end = os.pipe()
        middle = os.fork()
        if middle == 0:
            os.close(read_end)
            if os.fork():
                os._exit(0)
            _become_program(connection, variables.apply(request.environment), directory, write_end)
            return request
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            pid = pipe.read()
        os.waitpid(middle, 0)
        send_frame(connection, Forked(int(pid or 0)))


def _become_program(connection: socket.socket, environment: Mapping[str, str], directory: str, pipe: int) -> None:
    """Give the fork what a new process would have, and report its process id."""
    connection.close()
    os.setsid()
    os.chdir(directory)
    own_locale = os.environ.get("LC_CTYPE")
    os.environ.clear()
    os.environ.update(environment)
    if own_locale:  # the interpreter has set it, as a new one would (PEP 538)
        os.environ.setdefault("LC_CTYPE", own_locale)
    time.tzset()
    _forget_temporary_directory()
    _renew_secrets()
    os.write(pipe, str(os.getpid()).encode())
    os.close(pipe)


def _renew_secrets() -> None:
    """Draw what libraries draw once per process; the standard library's `random` does so by itself."""
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(32)


def _forget_temporary_directory() -> None:
    """Let `tempfile` look at the environment again: a module that was imported may have asked for the directory."""
    tempfile.tempdir = None


def run_as_main(arguments: Sequence[str]) -> None:
    """Run a module as `python -m` does."""
    name = arguments[0]
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    code = getattr(spec.loader, "get_code")(spec.name) if spec is not None else None  # noqa: B009 - no loader has to
    if spec is None or code is None:
        sys.exit(f"{sys.executable}: No module named {name}")
    # As in a new interpreter, the program is `__main__`; who imports it by its name gets a second copy.
    sys.modules.pop(spec.name, None)
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=spec.origin, __cached__=spec.cached, __loader__=spec.loader, __package__=spec.parent, __spec__=spec
    )
    if "__annotations__" in sys.modules["__main__"].__dict__:  # before Python 3.14
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    sys.argv[:] = [spec.origin or name, *arguments[1:]]
    sys.orig_argv[:] = [sys.executable, "-m", *arguments]
    exec(code, main.__dict__)  # noqa: S102 - the program that the request names


def main() -> None:
    """Preload, serve, and in a fork run its program."""
    _restore_signals()
    end = QuickEnd()
    atexit.register(end)  # before any module is imported: what is registered first is called last
    connection = socket.socket(fileno=int(sys.argv[1]))
    temporary = _make_temporary_directory()
    before = dict(os.environ)
    ready = import_modules(sys.argv[2:], temporary)
    variables = ImportedVariables(before, os.environ)
    end.share_modules()
    try:
        send_frame(connection, ready)
    except ConnectionError:  # the runner has left meanwhile
        _end(1, temporary)
    if ready.refused:
        _end(1, temporary)
    gc.collect()
    gc.freeze()  # a collection in a fork does not copy what it shares with the others
    request = serve(connection, variables, temporary)
    try:
        run_as_main(request.command)
    except SystemExit as ended:
        end.exit_status = 0 if ended.code is None else ended.code
        raise
    end.exit_status = 0


def _make_temporary_directory() -> str:
    """Make a directory for the temporary files of the imports; return "" where that is impossible."""
    try:
        os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="ecs-queue-preload-")
    except OSError:
        return ""
    _forget_temporary_directory()
    return os.environ["TMPDIR"]


def _restore_signals() -> None:
    """Ignore and block only what a new interpreter does, whatever the runner has inherited from its own parent."""
    of_python = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - of_python:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end(status: int, temporary: str) -> NoReturn:
    """End the server. Not by sys.exit: what the modules have registered for the end of a program is not for it."""
    if temporary:
        remove_tree(temporary)
    os._exit(status)


if __name__ == "__main__":
    main()
