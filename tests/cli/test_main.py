"""One sentence and an exit status for whatever goes wrong, and a start that is quick."""

from __future__ import annotations

import subprocess
from importlib import metadata

import click
import click.testing
import pytest
from botocore.exceptions import ProfileNotFound

import ecs_queue
from ecs_queue.cli import main as entry
from ecs_queue.cli.main import cli
from ecs_queue.errors import ConfigError
from tests.cli.conftest import PYTHON, Deployment, Invoke

#: What takes long to import and what --help has no need of.
HEAVY = ("boto3", "botocore", "kombu", "redis", "msgspec", "rich", "aiohttp")


def test_every_command_explains_itself_with_an_example(invoke: Invoke) -> None:
    for name in cli.commands:
        shown = invoke(name, "--help")
        assert shown.exit_code == 0
        assert f"ecs-queue {name}" in shown.stdout
        assert "Example" in shown.stdout


def test_the_help_of_the_whole_starts_from_the_problem_and_names_every_command(invoke: Invoke) -> None:
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert "Launching ECS tasks directly is slow" in shown.stdout
    listed = shown.stdout.partition("Commands:")[2]
    assert all(f"  {name} " in listed for name in cli.commands)
    assert "..." not in listed  # no summary is cut off


def test_help_imports_nothing_that_is_slow() -> None:
    code = f"""
import sys
from ecs_queue.cli.main import cli
cli(["--help"], standalone_mode=False)
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_the_version_is_printed(invoke: Invoke) -> None:
    shown = invoke("--version")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("ecs-queue ")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["submit", "--nonsense", "--", "true"], "No such option"),
        (["tasks", "--state", "asleep"], "'asleep' is not one of"),
        (["tasks", "--limit", "0"], "--limit"),
        (["worker", "--concurrency", "0"], "--concurrency"),
        (["submit", "--priority", "10", "--", "true"], "--priority"),
        (["submit", "--expires-in", "inf", "--", "true"], "--expires-in"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(invoke: Invoke, arguments: list[str], part: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("ecs-queue")
    assert part in done.stderr
    assert "--help` explains" in done.stderr


def test_an_option_is_accepted_before_and_after_the_command_and_the_one_after_counts(invoke: Invoke) -> None:
    before = invoke("--namespace", "one", "config", "--json")
    after = invoke("config", "--json", "--namespace", "two")
    both = invoke("--namespace", "one", "config", "--json", "--namespace", "two")
    found = ['"key": "namespace", "value": "one", "origin": "command line"' in before.stdout]
    found += ['"key": "namespace", "value": "two", "origin": "command line"' in done.stdout for done in (after, both)]
    assert found == [True, True, True]


@click.command()
@click.argument("how")
def failing(how: str) -> int | None:
    """Fail in the given way."""
    if how == "config":
        raise ConfigError("first problem\nsecond problem")
    if how == "profile":
        raise ProfileNotFound(profile="nope")
    if how == "disk":
        raise OSError(28, "No space left on device", "results.jsonl")
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "bug":
        raise ZeroDivisionError("division by zero")
    return 7 if how == "seven" else None


@pytest.fixture
def failing_command() -> click.Group:
    group = entry.RootGroup("ecs-queue", params=list(cli.params), callback=lambda: None)
    group.add_command(failing)
    return group


def run(group: click.Group, *arguments: str) -> tuple[int, str]:
    done = click.testing.CliRunner().invoke(group, arguments)
    return done.exit_code, done.stderr


def test_a_commands_own_status_is_the_exit_status(failing_command: click.Group) -> None:
    assert run(failing_command, "failing", "seven")[0] == 7
    assert run(failing_command, "failing", "not")[0] == 0


def test_each_problem_of_a_configuration_is_a_line(failing_command: click.Group) -> None:
    status, said = run(failing_command, "failing", "config")
    assert (status, said) == (2, "ecs-queue: first problem\necs-queue: second problem\n")


def test_a_full_disk_is_a_sentence(failing_command: click.Group) -> None:
    status, said = run(failing_command, "failing", "disk")
    assert status == 2
    assert said == "ecs-queue: [Errno 28] No space left on device: 'results.jsonl'\n"


def test_aws_settings_that_botocore_refuses_are_a_sentence(failing_command: click.Group) -> None:
    status, said = run(failing_command, "failing", "profile")
    assert status == 2
    assert said.startswith("ecs-queue: The config profile (nope) could not be found: check AWS_PROFILE")


def test_ctrl_c_is_status_130(failing_command: click.Group) -> None:
    assert run(failing_command, "failing", "interrupt")[0] == 130


def test_a_bug_says_so_in_a_sentence_and_shows_where_on_request(failing_command: click.Group) -> None:
    status, said = run(failing_command, "failing", "bug")
    assert status == 70
    assert "a bug, ZeroDivisionError" in said
    assert "Traceback" not in said
    assert "Traceback" in run(failing_command, "--log-level", "debug", "failing", "bug")[1]


@pytest.mark.parametrize("address", ["", "https://example.org/issues"])
def test_a_bug_says_where_to_report_it_or_else_what_to_keep(
    failing_command: click.Group, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("ecs_queue.version.report_address", lambda: address)
    said = run(failing_command, "failing", "bug")[1]
    assert ("please report it at https://example.org/issues" in said) == bool(address)
    assert ("report" in said) == bool(address)
    assert ("the command, what it prints with --log-level debug, and version" in said) == (not address)


@pytest.mark.parametrize("group", [[], ["dead"], ["journal"]])
def test_a_group_without_a_command_prints_its_help_as_it_is(invoke: Invoke, group: list[str]) -> None:
    done = invoke(*group)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.strip() == invoke(*group, "--help").stdout.strip()
    assert done.stderr.count("\n") > 10


def test_the_package_names_its_version() -> None:
    assert ecs_queue.__version__ == metadata.version("ecs-queue")


@pytest.mark.slow
def test_a_closed_pipe_ends_a_command_quietly(deployment: Deployment) -> None:
    for number in range(3):
        assert deployment.run("submit", "--id", f"pipe-{number}", "--", "true").returncode == 0
    process = deployment.start("tasks", "--json")
    assert process.stdout is not None
    process.stdout.close()  # before the first line is written
    assert process.stderr is not None
    with process.stderr:
        said = process.stderr.read()
    assert process.wait(30) == 1
    assert said == b""
