"""A runner process from its start to its end: when it leaves, and what it reports when a stop or ECS ends a command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ecs_queue.local.redis_server import RedisServer
from ecs_queue.protocol.runs import RunEnd
from ecs_queue.runs.runner_key import RunnerKeys, derive_runner_key
from tests.runner.conftest import ARN, NAMESPACE, PREFIX, QUEUE, SECRET_URL_NAME, MakeRunner, RunnerProcess
from tests.wait import TIMEOUT_SECONDS, wait_until

#: What a runner must not import: it starts in every task.
HEAVY = {
    *("asyncio", "boto3", "botocore", "click", "cryptography", "http.client", "kombu", "logging", "redis", "rich"),
    *("ecs_queue.cli", "ecs_queue.config", "ecs_queue.ledger", "ecs_queue.messages", "ecs_queue.worker"),
}
TRAP = "trap '{}' TERM; echo up; while :; do sleep 0.01; done"


def _exit_code(runner: RunnerProcess) -> int:
    assert runner.process is not None
    return runner.process.wait(TIMEOUT_SECONDS)


def _await_output(runner: RunnerProcess, text: str) -> None:
    wait_until(lambda: text in runner.output(), text)


def test_a_runner_imports_nothing_that_is_slow() -> None:
    code = "import sys, ecs_queue.runner.main; print(sorted(sys.modules))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(re.findall(r"'([\w.]+)'", imported)) == set()


def test_the_first_command_binds_the_run_and_an_idle_runner_leaves_when_its_time_is_over(
    make_runner: MakeRunner,
) -> None:
    runner = make_runner(warm_seconds=0.5)
    runner.assign("sh", "-c", "exit 3")
    runner.start()
    assert runner.end() == (3, False)
    assert runner.fields()["arn"] == ARN
    assert _exit_code(runner) == 0
    assert runner.fields()["closed"] == "left"


def test_a_wake_up_starts_the_next_command_at_once(make_runner: MakeRunner) -> None:
    runner = make_runner(runner_ttl=3000.0)
    runner.assign("true")
    runner.start()
    assert runner.end() == (0, False)
    assert [runner.run("sh", "-c", f"exit {code}") for code in (1, 2)] == [1, 2]


@pytest.mark.parametrize("stored", [{}, {"phase": "assigned", "turn": "1", "boot": "another", "arn": "arn:other"}])
def test_a_run_that_is_absent_or_another_processs_sends_the_runner_away(
    make_runner: MakeRunner, stored: dict[str, str]
) -> None:
    runner = make_runner()
    if stored:
        runner.store(**stored)
    assert _exit_code(runner.start_without_run()) == 0
    assert runner.fields() == stored


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGRTMIN + 3])
@pytest.mark.parametrize("is_busy", [False, True])
def test_the_stop_signal_of_another_kind_of_image_ends_the_runner_as_sigterm(
    make_runner: MakeRunner, number: int, is_busy: bool
) -> None:
    """ECS sends what the image names in STOPSIGNAL. Else the runner would take commands until it is killed."""
    runner = make_runner(runner_ttl=3000.0).start()
    assert runner.run("true") == 0
    if is_busy:
        runner.assign("sh", "-c", TRAP.format("exit 0"))
        wait_until(lambda: "up\n" in runner.output_of(runner.turn))
    assert runner.process is not None
    runner.process.send_signal(number)
    assert _exit_code(runner) == 0
    assert (runner.fields()["closed"], runner.fields()["exit_code"]) == ("left", "0")


def test_a_terminal_that_changes_its_size_ends_no_runner(make_runner: MakeRunner) -> None:
    runner = make_runner().start()
    assert runner.run("true") == 0
    assert runner.process is not None
    runner.process.send_signal(signal.SIGWINCH)
    assert runner.run("sh", "-c", "exit 3") == 3


def test_a_command_does_not_get_the_end_of_one_that_the_server_has_forgotten(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    """A server that fails over without a barrier loses the last second, and gives the number of a turn again."""
    runner = make_runner().start()
    assert runner.run("sh", "-c", "exit 3") == 3
    mark = tmp_path / "mark"
    runner.turn = 0
    runner.assign("touch", str(mark), record_id="another", phase="fetched")  # the answer that gave it is lost
    assert runner.end() == (0, False)
    assert mark.exists()


def test_a_runner_that_gets_a_command_again_whose_end_it_has_no_more_leaves_it_to_ecs(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    """The server was flushed, a client has submitted its request again, and ECS has answered with the same task."""
    runner = make_runner().start()
    assert [runner.run("true") for _ in range(2)] == [0, 0]
    mark = tmp_path / "mark"
    runner.delete_keys()
    runner.turn = 0
    runner.assign("touch", str(mark))
    assert _exit_code(runner) == 1
    assert runner.fields()["phase"] == "fetched", "it has reported nothing: it ran once"
    assert not mark.exists()
    assert "has lost what it knew of this runner's commands" in runner.output()


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_runner_whose_namespace_was_deleted_leaves_by_itself_after_its_command(
    make_runner: MakeRunner, tmp_path: Path, is_busy: bool
) -> None:
    runner = make_runner(runner_ttl=0.6)
    go = tmp_path / "go"
    runner.assign("sh", "-c", f"echo up; until [ -e {go} ]; do sleep 0.01; done; echo whole")
    runner.start()
    _await_output(runner, "up\n")
    if not is_busy:
        go.touch()
        runner.end()
    runner.delete_keys()
    if is_busy:
        _await_beat(runner)
        go.touch()
    assert _exit_code(runner) == 0
    assert "whole\n" in runner.output()
    assert runner.fields() == {}, "nothing of it is made again"


def _await_beat(runner: RunnerProcess) -> None:
    """Wait until the runner has called twice while its command runs."""

    def calls() -> int:
        return int(runner.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    before = calls()
    wait_until(lambda: calls() >= before + 2, "two calls")


def test_a_command_that_ignores_a_cancel_is_killed_after_the_stop_timeout(make_runner: MakeRunner) -> None:
    runner = make_runner(stop_timeout=0.3)
    runner.assign("sh", "-c", TRAP.format("echo no"))
    runner.start()
    _await_output(runner, "up\n")
    runner.cancel()
    assert runner.end() == (137, True)
    assert "no\n" in runner.output()


def test_a_command_that_has_stopped_itself_is_killed_after_the_stop_timeout(make_runner: MakeRunner) -> None:
    runner = make_runner(stop_timeout=0.3)
    runner.assign("sh", "-c", "echo up; kill -STOP $$")
    runner.start()
    _await_output(runner, "up\n")
    runner.cancel()
    assert runner.end() == (137, True)
    assert runner.run("true") == 0


@pytest.mark.parametrize(
    ("on_sigterm", "phase", "exit_code"),
    [("exit 0", "ended", "0"), ("exit 1", "fetched", None), ("-", "fetched", None)],
)
def test_sigterm_is_passed_on_and_an_end_that_it_may_have_made_is_not_reported(
    make_runner: MakeRunner, on_sigterm: str, phase: str, exit_code: str | None
) -> None:
    runner = make_runner()
    runner.assign("sh", "-c", TRAP.format(on_sigterm) if on_sigterm != "-" else "echo up; exec sleep 600")
    runner.start()
    _await_output(runner, "up\n")
    assert runner.process is not None
    runner.process.send_signal(signal.SIGTERM)
    assert _exit_code(runner) == (0 if exit_code else 143)
    fields = runner.fields()
    assert (fields["phase"], fields.get("exit_code")) == (phase, exit_code)


def test_a_runner_that_is_frozen_while_it_waits_does_not_take_what_it_is_assigned(
    make_runner: MakeRunner, own_redis: RedisServer
) -> None:
    """Launchers put back what was not taken after runner_ttl; what was taken is the runner's while its task runs."""
    runner = make_runner(own_redis, runner_ttl=3000.0)
    runner.assign("true")
    runner.start()
    runner.end()
    wait_until(runner.waits, "it waits for a wake-up")
    assert runner.process is not None
    runner.process.send_signal(signal.SIGSTOP)
    runner.assign("true")
    wait_until(lambda: not runner.client.exists(f"{PREFIX}wake:{runner.name}"), "the server has sent the wake-up")
    runner.client.ping()  # what the runner had sent before would be carried out by now
    assert runner.fields()["phase"] == "assigned"
    runner.process.send_signal(signal.SIGCONT)
    assert runner.end() == (0, False)


def test_an_idle_runner_that_ecs_ends_closes_its_run_at_once(make_runner: MakeRunner) -> None:
    runner = make_runner(runner_ttl=3000.0)
    runner.assign("true")
    runner.start()
    runner.end()
    assert runner.process is not None
    runner.process.send_signal(signal.SIGTERM)
    assert _exit_code(runner) == 0
    assert runner.fields()["closed"] == "left"


def test_a_command_outlives_the_server_and_its_end_is_reported_to_the_next_one(
    make_runner: MakeRunner, own_redis: RedisServer, tmp_path: Path
) -> None:
    runner = make_runner(own_redis, runner_lost_seconds=600.0, runner_ttl=0.3)
    go = tmp_path / "go"
    runner.assign("sh", "-c", f"echo up; until [ -e {go} ]; do sleep 0.01; done; exit 7")
    runner.start()
    _await_output(runner, "up\n")
    own_redis.kill()
    go.touch()
    _await_output(runner, "the server cannot be reached")
    own_redis.restart()
    assert runner.end() == (7, False)
    assert runner.run("true") == 0
    assert "the server answers again" in runner.output()


def test_an_idle_runner_that_has_lost_the_server_exits(make_runner: MakeRunner, own_redis: RedisServer) -> None:
    runner = make_runner(own_redis, runner_lost_seconds=0.5)
    runner.assign("true")
    runner.start()
    runner.end()
    own_redis.kill()
    assert _exit_code(runner) == 1


def test_an_end_that_a_fail_over_has_undone_is_reported_again(make_runner: MakeRunner) -> None:
    runner = make_runner(runner_ttl=0.3)
    runner.assign("sh", "-c", "exit 5")
    runner.start()
    assert runner.end() == (5, False)
    runner.store(phase="fetched", exit_code="")
    assert runner.end() == (5, False)
    assert runner.output().count("start of request") == 1


def test_nothing_is_started_that_the_server_has_not_confirmed(make_runner: MakeRunner) -> None:
    runner = make_runner(durability="replica")  # and there is none
    runner.assign("sh", "-c", "echo started")
    runner.start()
    wait_until(lambda: runner.fields()["phase"] == "fetched")
    _await_output(runner, "the server did not confirm")
    assert "started" not in runner.output()
    assert runner.fields()["phase"] == "fetched"


def test_payloads_are_opened_and_ends_signed_with_the_key_of_the_queue(make_runner: MakeRunner) -> None:
    key = derive_runner_key(NAMESPACE, QUEUE, b"k" * 32, b"")
    runner = make_runner()
    runner.keys = RunnerKeys([key])
    runner.assign("sh", "-c", "env; exit 5")
    runner.start(ECS_QUEUE_RUNNER_KEY=key)
    assert runner.end() == (5, False)
    reported = RunEnd(turn=1, exit_code=5, mac=runner.fields()["mac"])
    assert runner.keys.verify_end(NAMESPACE, QUEUE, runner.name, reported)
    assert key not in runner.output()


def test_an_end_is_signed_with_the_key_of_its_command(make_runner: MakeRunner) -> None:
    key = derive_runner_key(NAMESPACE, QUEUE, b"k" * 32, b"")
    runner = make_runner()
    runner.keys = RunnerKeys([key])  # the launchers' keys: one of the runner's was taken away from them
    runner.assign("true")
    runner.start(ECS_QUEUE_RUNNER_KEY=f"{derive_runner_key(NAMESPACE, QUEUE, b'o' * 32, b'')},{key}")
    assert runner.end() == (0, False)
    reported = RunEnd(turn=1, exit_code=0, mac=runner.fields()["mac"])
    assert runner.keys.verify_end(NAMESPACE, QUEUE, runner.name, reported)


def test_a_payload_of_another_key_is_not_run_and_the_runner_leaves(make_runner: MakeRunner) -> None:
    runner = make_runner()
    runner.keys = RunnerKeys([derive_runner_key(NAMESPACE, QUEUE, b"k" * 32, b"")])
    runner.assign("echo", "started")
    runner.start(ECS_QUEUE_RUNNER_KEY=derive_runner_key(NAMESPACE, "other", b"k" * 32, b""))
    assert _exit_code(runner) == 0
    assert (runner.fields()["phase"], runner.fields()["exit_code"]) == ("ended", "126")
    assert "set ECS_QUEUE_RUNNER_KEY to what `ecs-queue runner-key default` prints" in runner.output()
    assert "started\n" not in runner.output()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ECS_QUEUE_RUNNER", "{}", "update ecs-queue in the image"),
        (SECRET_URL_NAME, "", "ECS_QUEUE_RUNNER_URL is not set"),
        (SECRET_URL_NAME, "http://:secret@host", "the scheme is none of"),
        (SECRET_URL_NAME, "redis://:secret@host/0?colour=red", "the option 'colour' after the ? is unknown"),
        ("ECS_QUEUE_RUNNER_KEY", "secret", "expected what `ecs-queue runner-key QUEUE` prints"),
        ("ECS_CONTAINER_METADATA_URI_V4", "", "needs Fargate 1.4.0"),
    ],
)
def test_what_makes_a_start_impossible_is_said_in_a_sentence_without_secrets(
    make_runner: MakeRunner, variable: str, value: str, sentence: str
) -> None:
    runner = make_runner()
    assert _exit_code(runner.start(**{variable: value})) == 2
    assert sentence in runner.output()
    assert "secret" not in runner.output().replace("as a secret", "").replace("the secret", "")
    assert len(runner.output().splitlines()) == 1


def test_the_servers_refusal_of_a_password_is_an_outage_without_the_password(make_runner: MakeRunner) -> None:
    runner = make_runner()
    runner.assign("true")
    url = runner.server.url.replace("redis://", "redis://someone:pass-word@")
    runner.start(**{SECRET_URL_NAME: url})
    _await_output(runner, "the server refused the runner: WRONGPASS")
    assert "pass-word" not in runner.output()


def test_a_child_that_ends_while_the_runner_is_idle_is_reaped(make_runner: MakeRunner) -> None:
    runner = make_runner(runner_ttl=3000.0)
    runner.store(phase="idle", turn=0)
    # Orphans become children of a container's first process; here the shell, which becomes the runner, leaves one.
    runner.start_behind("sh", "-c", 'sleep 0.5 & exec "$@"', "sh")
    assert runner.process is not None
    children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children")
    wait_until(lambda: "seen_at" in runner.fields(), "the runner has asked")
    wait_until(lambda: children.read_text() == "", "no zombie is left")


def test_a_runner_starts_fast_and_stays_small(make_runner: MakeRunner) -> None:
    """Today it takes 0.09 s of processor time and 26 MB; the bounds leave room for a machine with other work."""
    runner = make_runner()
    runner.store(phase="idle", turn=0)
    runner.start()
    wait_until(lambda: "seen_at" in runner.fields(), "the runner has asked")
    assert runner.process is not None
    process = psutil.Process(runner.process.pid)
    used = process.cpu_times()
    assert used.user + used.system < 0.5
    assert process.memory_info().rss < 50e6
