"""A preloaded program in a fork is what it is as a new process: what it sees, how it ends, and what it leaves."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecs_queue.local.redis_server import RedisServer
from ecs_queue.runner.preload import ForkRequest, Ready, receive_frame, send_frame
from tests.docs import ROOT
from tests.processes import assert_process_ended
from tests.runner.conftest import MakeRunner, RunnerProcess
from tests.wait import TIMEOUT_SECONDS, wait_until

#: A program that shows all that it sees, or ends in one of many ways. Its import leaves a mark.
PROGRAM = r"""
import atexit, json, os, random, signal, sys, tempfile, threading, time
import preloaded_library
def show():
    handlers = {n: str(signal.getsignal(n)) for n in range(1, 32) if n not in (9, 19)}
    spec = __spec__
    print(json.dumps({
        "name": __name__, "file": __file__, "package": __package__, "spec": spec.name, "argv": sys.argv,
        "orig_argv": sys.orig_argv[1:], "path": sys.path, "cwd": os.getcwd(), "environ": dict(os.environ, TMPDIR=""),
        "main": sys.modules["__main__"].__dict__ is globals(), "twice": "program" in sys.modules,
        "leads": os.getpid() == os.getpgrp() == os.getsid(0), "stdin": sys.stdin.read(), "umask": os.umask(0),
        "handlers": handlers, "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "threads": threading.active_count(), "fds": len(os.listdir("/proc/self/fd")), "tz": time.tzname,
        "temporary": tempfile.gettempdir() == os.environ["TMPDIR"],
        "buffered": sys.stdout.line_buffering, "globals": sorted(k for k in globals() if k.startswith("__")),
    }))
if __name__ == "__main__":
    ending = sys.argv[1]
    if ending == "show": show()
    if ending == "pid": print(os.getpid(), os.getppid())
    if ending == "random": print(random.random(), preloaded_library.imported_in)
    if ending == "code": sys.exit(int(sys.argv[2]))
    if ending == "text": sys.exit("a reason")
    if ending == "error": raise ValueError("an error")
    if ending == "interrupt": raise KeyboardInterrupt
    if ending == "abort": os.abort()
    if ending == "written":
        kept = open(sys.argv[2], "w")
        kept.write("a line that is not flushed")
        binary = open(sys.argv[2] + ".binary", "wb")
        binary.write(b"bytes")
        preloaded_library.kept.words = b"torn down"
        import ctypes
        ctypes.CDLL(None).printf(b"of C")
        print("of Python", end=" ")
    if ending == "unflushable": os.close(1); os.open("/dev/full", os.O_WRONLY); print("lost")
    if ending == "late":
        atexit.register(lambda: print("at exit"))
        threading.Thread(target=lambda: (time.sleep(0.1), print("thread", end=" "))).start()
        print("main", end=" ")
    if ending == "term":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
        print("up", flush=True)
        time.sleep(600)
    if ending == "leave":
        if os.fork() == 0:
            os.setsid()
            print(os.getpid(), flush=True)
            time.sleep(600)
        time.sleep(0.2)
"""
LIBRARY = """
import os, tempfile
imported_in = os.getpid()
tempfile.gettempdir()
class Kept:
    words = b""
    def __del__(self, write=os.write):
        write(1, self.words)
kept = Kept()
"""
#: Writes files and closes none; `ending` makes the objects of its module refer to each other.
WRITER = """
import gzip, sys, zipfile
import shared_file
if __name__ == "__main__":
    name = sys.argv[1]
    import own_module
    def ending(): return kept, text, archive
    shared_file.file.write("a line\\n")
    kept = open(name + ".txt", "w")
    kept.write("text")
    text = gzip.open(name + ".gz", "wt")
    text.write("compressed")
    archive = zipfile.ZipFile(name + ".zip", "w")
    archive.writestr("member", "content")
"""
OWN_MODULE = """
import gzip, sys
def ending(): return text
text = gzip.open(sys.argv[1] + ".own.gz", "wt")
text.write("compressed")
"""
#: Modules that leave something when they are imported; as programs they show it.
LEAVES_VARIABLES = """
import os
if __name__ != "__main__":
    os.environ.setdefault("SET_BY_IMPORT", "import")
    os.environ.pop("REMOVED_BY_IMPORT", None)
else:
    print(os.environ.get("SET_BY_IMPORT"), "REMOVED_BY_IMPORT" in os.environ)
"""
LEAVES_A_DIRECTORY = """
import os, tempfile
directory = tempfile.TemporaryDirectory()
if __name__ == "__main__": print(os.path.isdir(directory.name))
"""
LEAVES_A_CHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
if __name__ == "__main__": print(child.poll())
"""
LEAVES_A_TRACKER = """
import multiprocessing
lock = multiprocessing.get_context("spawn").Lock()
if __name__ == "__main__":
    with lock: print("locked")
"""
#: Starts the program in its arguments with signals that are ignored and blocked.
IGNORES_SIGNALS = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM): signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.execvp(sys.argv[1], sys.argv[1:])
"""
#: A variable that keeps a program from being forked: it could change how an interpreter starts.
AS_NEW_PROCESS = {"PYTHONTEST": "1"}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of modules that can be imported in the container."""
    directory = tmp_path_factory.mktemp("modules")
    (directory / "program.py").write_text(PROGRAM)
    (directory / "preloaded_library.py").write_text(LIBRARY)
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").write_text("")
    (directory / "package" / "__main__.py").write_text("import sys; print(__name__, __package__, sys.argv[1:])")
    (directory / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\nprint('ran')\n"
    )
    (directory / "connected.py").write_text(
        "import os, socket\n"
        "connection = socket.create_connection((os.environ['SERVER_HOST'], int(os.environ['SERVER_PORT'])))\n"
        "unconnected = socket.socket()\nprint('ran')\n"
    )
    (directory / "broken.py").write_text("import sys\nif __name__ != '__main__': sys.exit(3)\nprint('ran')\n")
    return directory


@pytest.fixture(scope="module")
def forking(
    redis_server: RedisServer, metadata_url: str, modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunnerProcess]:
    """A runner with preloaded modules, started by a program that ignores and blocks signals."""
    directory = tmp_path_factory.mktemp("runner")
    process = RunnerProcess(redis_server, metadata_url, directory, preload=["program", "package"])
    process.start_behind(sys.executable, "-c", IGNORES_SIGNALS, **_container(modules))
    yield process
    process.stop()


def _container(modules: Path) -> dict[str, str]:
    own = os.path.dirname(sys.executable)
    return {"PYTHONPATH": f"{ROOT}:{modules}", "PATH": f"{own}:{os.environ['PATH']}"}


def _run(runner: RunnerProcess, *arguments: str, as_new_process: bool = False, **environment: str) -> tuple[int, str]:
    variables = environment | (AS_NEW_PROCESS if as_new_process else {})
    code = runner.run("python", "-m", *arguments, environment=variables)
    lines = runner.output_of(runner.turn).splitlines(keepends=True)
    return code, "".join(line for line in lines if "starts as a new process" not in line)


def test_a_fork_sees_what_a_new_process_sees(forking: RunnerProcess) -> None:
    seen: list[Any] = []
    for as_new_process in (False, True):
        code, shown = _run(forking, "program", "show", "a b", as_new_process=as_new_process, OWN="x", TZ="Asia/Tokyo")
        assert code == 0, shown
        seen.append(json.loads(shown))
        seen[-1]["environ"].pop("PYTHONTEST", None)
    assert seen[0] == seen[1]
    assert seen[0]["environ"]["OWN"] == "x"
    assert seen[0]["main"]
    assert seen[0]["leads"]
    assert seen[0]["temporary"]
    assert _run(forking, "program", "show")[1].count("OWN") == 0


def test_a_runner_reports_while_its_first_command_waits_for_the_imports(
    redis_server: RedisServer, metadata_url: str, tmp_path: Path
) -> None:
    may_end = tmp_path / "may_end"
    wait = f"while not os.path.exists({str(may_end)!r}): time.sleep(0.02)"
    (tmp_path / "slow.py").write_text(f"import os, time\n{wait}\n")
    process = RunnerProcess(redis_server, metadata_url, tmp_path, preload=["slow"], runner_ttl=0.3)
    process.assign("python", "-m", "slow")
    process.start(**_container(tmp_path))
    seen: set[str] = set()

    def has_reported_again() -> bool:
        seen.add(process.fields().get("seen_at", ""))
        return len(seen - {""}) >= 3

    wait_until(has_reported_again, "it reports")
    may_end.touch()
    assert process.end() == (0, False)
    process.stop()


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_command_that_waits_for_the_imports_is_stopped_at_once(
    make_runner: MakeRunner, tmp_path: Path, is_cancelled: bool
) -> None:
    """Else it would start only to be stopped, or never, and the wait be taken for a command that does not end."""
    begun = tmp_path / "begun"
    (tmp_path / "endless.py").write_text(f"import time\nopen({str(begun)!r}, 'w')\ntime.sleep(600)\n")
    runner = make_runner(preload=["endless"], runner_ttl=0.3)
    runner.assign("python", "-m", "endless")
    runner.start(**_container(tmp_path))
    wait_until(lambda: begun.exists() and "start of request" in runner.output(), "it waits for the imports")
    assert runner.process is not None
    if is_cancelled:
        runner.cancel()
        assert runner.end() == (143, True)
        assert runner.run("sh", "-c", "exit 4") == 4
    else:
        runner.process.send_signal(signal.SIGTERM)
        assert runner.process.wait(TIMEOUT_SECONDS) == 143
        assert runner.fields()["phase"] == "fetched", "what ECS shows decides"


def test_a_module_is_imported_once_and_each_fork_has_its_own_random_numbers(forking: RunnerProcess) -> None:
    shown = [_run(forking, "program", "random")[1].split() for _ in range(3)]
    assert len({number for number, _ in shown}) == 3
    assert len({imported_in for _, imported_in in shown}) == 1
    assert _run(forking, "program", "random", as_new_process=True)[1].split()[1] != shown[0][1]


def test_a_variable_that_airflow_reads_early_makes_a_new_process_and_is_named_once(forking: RunnerProcess) -> None:
    def imported_in(**environment: str) -> str:
        return _run(forking, "program", "random", as_new_process=False, **environment)[1].split()[1]

    preloaded = imported_in()
    late = {"AIRFLOW_IS_EXECUTOR_CONTAINER": "true", "AIRFLOW__CORE__EXECUTOR": "a", "AIRFLOW__CORE__MULTI_TEAM": "b"}
    assert imported_in(**late) == preloaded
    for _ in range(2):
        assert imported_in(AIRFLOW__LOGGING__LOGGING_LEVEL="a secret value") != preloaded
    (sentence,) = [line for line in forking.output().splitlines() if "AIRFLOW__LOGGING" in line]
    assert "program starts as a new process, because the request sets AIRFLOW__LOGGING__LOGGING_LEVEL in" in sentence
    assert "a secret value" not in sentence


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        *((["code", str(code)], code) for code in (0, 3, 255)),
        (["code", "256"], 0),
        *((["text"], 1), (["error"], 1), (["unflushable"], 120), (["interrupt"], 130), (["abort"], 134), (["late"], 0)),
    ],
)
def test_a_fork_ends_as_a_new_process_does(forking: RunnerProcess, arguments: list[str], expected: int) -> None:
    ends = [_run(forking, "program", *arguments, as_new_process=as_new) for as_new in (False, True)]
    assert [code for code, _ in ends] == [expected] * 2
    last_lines = [shown.splitlines()[-1:] for _, shown in ends]
    assert last_lines[0] == last_lines[1]
    if arguments == ["late"]:
        assert ends[0][1] == "main thread at exit\n"


def test_what_a_fork_has_not_flushed_is_written_and_what_it_shares_is_not_torn_down(
    forking: RunnerProcess, tmp_path: Path
) -> None:
    ends = []
    for as_new_process in (False, True):
        path = tmp_path / f"{as_new_process}"
        ends.append(_run(forking, "program", "written", str(path), as_new_process=as_new_process))
        assert path.read_text() == "a line that is not flushed"
        assert path.with_suffix(".binary").read_bytes() == b"bytes"
    assert ends[0] == (0, "of Python of C")
    assert ends[1] == (0, "of Python torn downof C")


def test_what_a_fork_has_not_closed_is_complete(make_runner: MakeRunner, tmp_path: Path) -> None:
    """A compressed file and an archive have their last bytes only when they are closed."""
    (tmp_path / "writer.py").write_text(WRITER)
    (tmp_path / "own_module.py").write_text(OWN_MODULE)
    (tmp_path / "shared_file.py").write_text("import os\nfile = open(os.environ['SHARED_FILE'], 'a')\n")
    shared = tmp_path / "shared"
    runner = make_runner(preload=["writer"])
    runner.start(**_container(tmp_path), SHARED_FILE=str(shared))
    for number, as_new_process in enumerate((False, False, True)):
        path = tmp_path / f"{number}"
        assert _run(runner, "writer", str(path), as_new_process=as_new_process) == (0, "")
        assert path.with_suffix(".txt").read_text() == "text"
        for end in (".gz", ".own.gz"):
            assert gzip.decompress(Path(f"{path}{end}").read_bytes()) == b"compressed"
        with zipfile.ZipFile(f"{path}.zip") as archive:
            assert archive.read("member") == b"content"
        assert shared.read_text() == "a line\n" * (number + 1)


def test_a_fork_has_the_variables_that_imports_set_and_those_of_its_request(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    (tmp_path / "leaves_variables.py").write_text(LEAVES_VARIABLES)
    runner = make_runner(preload=["leaves_variables"])
    runner.start(**_container(tmp_path), REMOVED_BY_IMPORT="of the container")
    assert _run(runner, "leaves_variables") == (0, "import False\n")
    code, shown = _run(runner, "leaves_variables", SET_BY_IMPORT="request", REMOVED_BY_IMPORT="request")
    assert (code, shown) == (0, "request True\n")
    assert _run(runner, "leaves_variables") == (0, "import False\n")


@pytest.mark.parametrize(
    ("program", "reason", "shown"),
    [
        (LEAVES_A_DIRECTORY, "makes temporary files, which all forks would share", "True"),
        (LEAVES_A_CHILD, "starts a process, which would be no child of a fork", "None"),
    ],
)
def test_a_module_that_leaves_what_forks_would_share_is_refused(
    make_runner: MakeRunner, tmp_path: Path, program: str, reason: str, shown: str
) -> None:
    (tmp_path / "leaves.py").write_text(program)
    runner = make_runner(preload=["leaves"])
    runner.start(**_container(tmp_path))
    for _ in range(2):
        code, output = _run(runner, "leaves")
        assert (code, output.splitlines()[-1]) == (0, shown)
    assert f"runner_preload: leaves is not preloaded: its import {reason}" in runner.output()
    assert [path for path in runner.directory.iterdir() if path.name.startswith("ecs-queue-preload")] == []


def test_a_module_whose_locks_are_counted_by_a_process_of_multiprocessing_is_preloaded(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    (tmp_path / "leaves_a_tracker.py").write_text(LEAVES_A_TRACKER)
    runner = make_runner(preload=["leaves_a_tracker"])
    runner.start(**_container(tmp_path))
    assert _run(runner, "leaves_a_tracker") == (0, "locked\n")
    assert "is not preloaded" not in runner.output()


def test_a_package_runs_its_main_module_and_other_programs_are_new_processes(forking: RunnerProcess) -> None:
    assert _run(forking, "package", "x") == (0, "__main__ package ['x']\n")
    assert _run(forking, "json.tool", "--help")[0] == 0
    assert _run(forking, "no.such.module")[0] == 1
    assert forking.run(sys.executable, "-m", "program", "code", "4") == 4
    assert forking.run("python3", "-m", "program", "code", "5") == 5
    assert forking.run("/no/such/python", "-m", "program", "code", "5") == 127


def test_a_fork_is_cancelled_and_leaves_nothing_behind(forking: RunnerProcess) -> None:
    forking.assign("python", "-m", "program", "term")
    wait_until(lambda: "up\n" in forking.output_of(forking.turn))
    forking.cancel()
    assert forking.end() == (9, True)
    code, shown = _run(forking, "program", "leave")
    assert code == 0
    assert not Path(f"/proc/{shown.strip()}").exists()


def test_modules_that_start_threads_or_fail_are_refused_and_run_as_new_processes(
    make_runner: MakeRunner, modules: Path
) -> None:
    runner = make_runner(preload=["threaded", "program", "broken"])
    runner.start(**_container(modules))
    for module in ("threaded", "broken"):
        code, shown = _run(runner, module)
        assert code == 0
        assert shown.endswith("ran\n")
    assert len({_run(runner, "program", "random")[1].split()[1] for _ in range(2)}) == 1
    assert "runner_preload: threaded is not preloaded: its import starts a thread" in runner.output()
    assert "runner_preload: broken is not preloaded: its import fails: SystemExit: 3" in runner.output()


def test_a_module_that_is_connected_over_the_network_is_refused(make_runner: MakeRunner, modules: Path) -> None:
    """Forks would share the connection, and with TLS its keys and its count of records."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        runner = make_runner(preload=["program", "connected"])
        host, port = server.getsockname()
        runner.start(**_container(modules), SERVER_HOST=host, SERVER_PORT=str(port))
        code, shown = _run(runner, "connected")
    assert code == 0
    assert shown.endswith("ran\n")
    assert "runner_preload: connected is not preloaded: its import opens a network connection" in runner.output()
    assert len({_run(runner, "program", "random")[1].split()[1] for _ in range(2)}) == 1


@pytest.mark.parametrize("environment", [{"NUL": "a\0b"}, {"A=B": "c"}])
def test_variables_that_no_program_can_get_end_one_command_and_leave_the_fork_server(
    forking: RunnerProcess, environment: dict[str, str]
) -> None:
    server = _run(forking, "program", "random")[1].split()[1]
    assert forking.run("python", "-m", "program", "code", "0", environment=environment) == 126
    assert _run(forking, "program", "code", "a\0b")[0] == 126
    assert _run(forking, "program", "random")[1].split()[1] == server


def test_without_its_fork_server_a_runner_starts_new_processes(make_runner: MakeRunner, modules: Path) -> None:
    runner = make_runner(preload=["program"])
    runner.start(**_container(modules))
    _, shown = _run(runner, "program", "random")
    server = int(shown.split()[1])
    os.kill(server, signal.SIGKILL)
    assert_process_ended(server)
    assert [_run(runner, "program", "code", "4")[0] for _ in range(2)] == [4, 4]
    assert "commands are new processes now" in runner.output()


def test_a_runner_that_leaves_before_it_used_its_fork_server_only_ends_that() -> None:
    server, runner = socket.socketpair()
    with server:
        send_frame(server, Ready())
        runner.close()  # unread: the kernel says so to the other side
        assert receive_frame(server, ForkRequest) is None
