"""What one command of a runner sees of another one, and what it does to its runner: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs import ROOT
from tests.runner.conftest import MakeRunner, RunnerProcess
from tests.wait import TIMEOUT_SECONDS, wait_until

#: Of Python's own tests of daemons: two forks and a session, away from every group.
DETACH = "import os,sys,time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"


#: 32 and 33, which glibc does not show to programs, and ignores in what it starts until it uses them there.
_SIGNALS_OF_GLIBC = 0b11 << 31


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_gets_the_containers_environment_and_its_own_and_nothing_of_the_runners(
    runner: RunnerProcess,
) -> None:
    code, shown = runner.shell("env", environment={"OWN": "ä b\nc", "CONTAINER": "changed"})
    assert code == 0
    assert "OWN=ä b\nc\n" in shown
    assert "CONTAINER=changed\n" in shown
    assert "ECS_CONTAINER_METADATA_URI_V4=" in shown
    assert "ECS_QUEUE" not in shown
    _, shown = runner.shell("env")
    assert "OWN" not in shown
    assert "CONTAINER=its own\n" in shown


def test_a_command_has_a_temporary_directory_that_is_private_and_removed(runner: RunnerProcess) -> None:
    script = 'stat -c "%a %n" "$TMPDIR"; mkdir "$TMPDIR/a"; echo x > "$TMPDIR/a/b"; chmod 500 "$TMPDIR/a"'
    _, first = runner.shell(script)
    _, second = runner.shell(script)
    assert [shown.split()[0] for shown in (first, second)] == ["700", "700"]
    paths = [Path(shown.split()[1]) for shown in (first, second)]
    assert paths[0] != paths[1]
    assert [path.parent for path in paths] == [runner.directory] * 2
    assert not any(path.exists() for path in paths)
    assert runner.shell('echo "$TMPDIR"', environment={"TMPDIR": "/own"})[1] == "/own\n"


def test_a_read_only_temporary_directory_is_removed_too() -> None:
    """As another user than root, whom no mode stops. Go's module cache makes such directories."""
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ecs_queue.runner.processes import TemporaryDirectory\n"
        "if os.getuid() == 0: os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "directory = TemporaryDirectory('private'); path = directory.environment['TMPDIR']\n"
        "os.makedirs(path + '/a/b'); open(path + '/a/b/file', 'w').close(); os.symlink('/etc', path + '/a/link')\n"
        "for name in ('/a/b', '/a', ''): os.chmod(path + name, 0o500)\n"
        "directory.remove(); print(os.path.exists(path))"
    )
    with tempfile.TemporaryDirectory() as base:  # pytest's own directories are closed to others
        os.chmod(base, 0o777)
        arguments = [sys.executable, "-c", program, str(ROOT)]
        environment = {**os.environ, "TMPDIR": base}
        done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"


def test_a_link_in_place_of_the_temporary_directory_is_removed_and_not_followed(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    (shared / "inner").mkdir(parents=True)
    for directory in (shared, shared / "inner"):
        directory.chmod(0o755)
    script = 'echo "$TMPDIR"; rmdir "$TMPDIR"; ln -s "$1" "$TMPDIR"'
    code, shown = runner.shell(script, str(shared))
    assert code == 0
    assert not os.path.lexists(shown.strip())
    assert [directory.stat().st_mode & 0o777 for directory in (shared, shared / "inner")] == [0o755, 0o755]


def test_a_file_in_place_of_the_temporary_directory_is_removed(runner: RunnerProcess) -> None:
    _, shown = runner.shell('echo "$TMPDIR"; rmdir "$TMPDIR"; echo x > "$TMPDIR"')
    assert not os.path.lexists(shown.strip())


def test_a_temporary_directory_that_is_deeper_than_a_path_may_be_is_removed_and_the_end_reported(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """Python before 3.13 removes a tree by recursion, and opens a file for each level."""
    outside = tmp_path / "outside"
    outside.write_text("kept")
    program = (
        "import os, sys\n"
        "print(os.environ['TMPDIR'], flush=True); os.chdir(os.environ['TMPDIR'])\n"
        "for number in range(3000):\n"
        "    os.mkdir('inner'); os.symlink(sys.argv[1], 'link'); os.chdir('inner')\n"
        "    if number % 500 == 0: os.chmod('.', 0o700); open('file', 'w').close()\n"
        "sys.exit(7)"
    )
    assert runner.run(sys.executable, "-c", program, str(outside)) == 7
    assert not os.path.lexists(runner.output_of(runner.turn).strip())
    assert outside.read_text() == "kept"
    assert runner.run("true") == 0


def test_a_command_starts_in_the_containers_directory_without_input_and_in_its_own_session(
    runner: RunnerProcess,
) -> None:
    code, shown = runner.shell("cat; pwd; ps -o pid=,pgid=,sid= -p $$; umask; ulimit -n; cd /; umask 7")
    assert code == 0
    directory, ids = shown.splitlines()[:2]
    assert directory == str(runner.directory)
    assert len(set(ids.split())) == 1
    _, after = runner.shell("cat; pwd; ps -o pid=,pgid=,sid= -p $$; umask; ulimit -n")
    assert after.splitlines()[2:] == shown.splitlines()[2:]
    assert after.splitlines()[0] == directory


def test_every_exit_code_arrives(runner: RunnerProcess) -> None:
    assert [runner.run("sh", "-c", f"exit {code}") for code in range(256)] == list(range(256))


@pytest.mark.parametrize(
    ("expected", "command"),
    [
        (137, ["sh", "-c", "kill -KILL $$"]),
        (143, ["sh", "-c", "kill -TERM $$"]),
        (134, ["sh", "-c", "kill -ABRT $$"]),
        (127, ["no-such-program"]),
        (127, ["/no/such/program"]),
        (127, [""]),
        (126, ["/etc/hostname"]),
        (126, ["/etc"]),
        (126, ["sh", "-c", "\0"]),
        (127, []),
    ],
)
def test_the_exit_code_is_the_commands_own(runner: RunnerProcess, expected: int, command: list[str]) -> None:
    assert runner.run(*command) == expected


def test_a_program_without_a_format_is_not_executable(runner: RunnerProcess, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\0\0\0\0")
    program.chmod(0o755)
    assert runner.run(str(program)) == 126
    assert "cannot be executed: Exec format error" in runner.output()


def test_the_commands_own_path_is_searched(runner: RunnerProcess, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    assert runner.run("only-here", environment={"PATH": f"{tmp_path}:/usr/bin:/bin"}) == 9
    assert runner.run("only-here") == 127


def test_what_a_command_leaves_behind_is_killed_before_its_end_is_reported(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    program = f"{DETACH}open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(600)"
    script = (
        f"sleep 600 & echo $! >> {pids}; (trap '' TERM HUP; exec sleep 600) & echo $! >> {pids}; \"$@\"; exec sleep 0.3"
    )
    assert runner.shell(script, sys.executable, "-c", program)[0] == 0
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 3
    assert [pid for pid in found if _is_alive(pid)] == []


def test_a_command_that_detaches_and_ends_at_once_leaves_nothing(runner: RunnerProcess, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"{DETACH}time.sleep(1)\nopen({str(mark)!r}, 'w')"
    assert runner.run(sys.executable, "-c", program) == 0
    wait_until(lambda: not _find_processes(str(mark)))
    assert not mark.exists()


def _find_processes(text: str) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if text in line and "ps -eo" not in line]


def test_a_command_that_closes_its_streams_and_writes_100_mb_changes_nothing(runner: RunnerProcess) -> None:
    assert runner.run("sh", "-c", "exec 0<&- 1>&- 2>&-; exit 4") == 4
    size = runner.log.stat().st_size
    assert runner.run("sh", "-c", "head -c 100000000 /dev/zero; exit 5") == 5
    assert runner.log.stat().st_size > size + 100_000_000
    assert runner.shell("echo still here") == (0, "still here\n")
    os.truncate(runner.log, 0)


@pytest.mark.parametrize("closing", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_runner_whose_streams_are_closed_runs_its_commands(make_runner: MakeRunner, closing: str) -> None:
    """The numbers of closed streams go to the next files: its commands would write to its pipes and its connection."""
    runner = make_runner()
    runner.start_behind("sh", "-c", f'exec "$@" {closing}', "sh")
    assert [runner.shell("echo to nobody; echo to nobody >&2; exit 4")[0] for _ in range(2)] == [4, 4]
    assert runner.shell("cat; [ /dev/null -ef /proc/self/fd/0 ]")[0] == 0


def test_a_huge_environment_reaches_the_command_and_one_that_is_too_large_ends_it(runner: RunnerProcess) -> None:
    many = {f"NAME_{number}": "x" * 1000 for number in range(1000)}
    code, shown = runner.shell("env | grep -c ^NAME_", environment=many)
    assert (code, shown) == (0, "1000\n")
    assert runner.run("true", environment={"BIG": "x" * 200_000}) == 126
    assert "Argument list too long" in runner.output()


def test_a_command_that_removes_the_working_directory_is_the_last_one(make_runner: MakeRunner, tmp_path: Path) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    runner = make_runner()
    runner.assign("sh", "-c", f"rmdir {directory}")
    runner.start_in(directory)
    assert runner.end() == (0, False)
    assert runner.process is not None
    assert runner.process.wait(TIMEOUT_SECONDS) == 0
    assert f"has removed the working directory {directory}: this runner takes no further command" in runner.output()
    assert runner.fields()["closed"] == "left"


def test_a_directory_that_a_command_has_put_in_place_of_the_working_directory_is_used(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    runner = make_runner()
    runner.assign("sh", "-c", f"mv {directory} {directory}.old; mkdir {directory}; touch {directory}/new")
    runner.start_in(directory)
    assert runner.end() == (0, False)
    assert runner.shell("ls") == (0, "new\n")


def test_what_starts_the_runner_leaves_no_trace_in_a_command(make_runner: MakeRunner) -> None:
    """Ignored and blocked signals, open descriptors, and what Python itself changes: the locale, SIGPIPE."""
    runner = make_runner()
    wrapper = (
        "import os, signal, sys\n"
        "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD): signal.signal(number, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n"
        "os.dup2(os.open('/dev/null', os.O_RDONLY), 77)\n"
        "os.execvpe(sys.argv[1], sys.argv[1:], {n: v for n, v in os.environ.items() if n != 'LC_CTYPE'})"
    )
    runner.assign("sh", "-c", "env | grep ^LC_; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd")
    runner.start_behind(sys.executable, "-c", wrapper)
    assert runner.end()[0] == 0
    shown = runner.output_of(1).split()
    assert (shown[0], shown[2], "77" in shown[4:]) == ("SigBlk:", "SigIgn:", False)
    assert int(shown[1], 16) == 0
    assert int(shown[3], 16) & ~_SIGNALS_OF_GLIBC == 0


def test_signals_that_a_command_gets_and_ignores_are_its_own(runner: RunnerProcess) -> None:
    show = "import signal; print([n for n in range(1, 32) if signal.getsignal(n) is signal.SIG_IGN])"
    plain = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout
    runner.run("sh", "-c", "trap '' TERM INT HUP; kill -TERM $$; true")
    runner.run(sys.executable, "-c", show)
    assert json.loads(runner.output_of(runner.turn)) == json.loads(plain)


def test_a_command_that_makes_the_streams_non_blocking_does_so_for_itself_alone(runner: RunnerProcess) -> None:
    code = "import os; print(*map(os.get_blocking, (1, 2))); [os.set_blocking(stream, False) for stream in (1, 2)]"
    for _ in range(2):
        assert runner.run(sys.executable, "-c", code) == 0
        assert runner.output_of(runner.turn) == "True True\n"


def test_a_cancelled_command_gets_sigterm_and_may_end_by_itself(runner: RunnerProcess) -> None:
    runner.assign("sh", "-c", "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.01; done")
    wait_until(lambda: "up\n" in runner.output_of(runner.turn))
    runner.cancel()
    assert runner.end() == (3, True)
    assert "told\n" in runner.output_of(runner.turn)
    assert runner.run("true") == 0


def test_each_request_can_be_cut_out_of_the_log(runner: RunnerProcess) -> None:
    _, one = runner.shell("echo one; echo two >&2; printf 'no newline'")
    _, two = runner.shell("echo three")
    assert one == "one\ntwo\nno newline"
    assert two == "three\n"
    assert f"end of request req-{runner.turn}, launch 1, turn {runner.turn}, exit code 0\n" in runner.output()


def test_a_signal_to_the_runner_that_ends_nothing_is_passed_on(runner: RunnerProcess) -> None:
    runner.assign("sh", "-c", "trap 'exit 12' USR1; echo up; while :; do sleep 0.01; done")
    wait_until(lambda: "up\n" in runner.output_of(runner.turn))
    assert runner.process is not None
    runner.process.send_signal(signal.SIGUSR1)
    assert runner.end() == (12, False)
