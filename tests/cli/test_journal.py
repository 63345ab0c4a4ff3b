"""`journal`: show, tail, export, import; on a real run, and where there is nothing."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from pathlib import Path

import pytest
import redis

from ecs_queue.client.acting_user import acting_user
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.journal import open_journal
from tests.cli.conftest import Deployment, Invoke, json_lines
from tests.wait import wait_until

SECRET = "hunter2-4711"


@pytest.fixture(scope="module")
def ended(deployment: Deployment) -> str:
    """The id of a request that has failed with 3, and is in the journal to its end."""
    config = {"environment": [{"name": "API_TOKEN", "value": SECRET}]}
    with EcsQueue.from_config(environ=deployment.environ) as client:
        handle = client.submit(["sh", "-c", "exit 3"], executor_config=config)
        handle.result(60)
    with closing(open_journal(client.config)) as journal:
        wait_until(
            lambda: "request.ended" in {event.name for event in journal.request_events(handle.id)},
            "its end is in the journal",
            30,
        )
    return handle.id


def events_of(text: str) -> list[str]:
    return [event["name"] for event in json_lines(text) if "name" in event]


def test_show_prints_a_request_from_its_envelope_to_its_end(invoke: Invoke, deployment: Deployment, ended: str) -> None:
    done = invoke("journal", "show", ended, env=deployment.environ)

    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["AT", "AFTER", "EVENT", "WORKER", "WHAT"]
    # Client and worker date them by their own measurement of the server's clock, so that either may stand first.
    assert {"request.submitted", "request.received"} <= {line.split()[3] for line in lines[1:]}
    assert "0.000 s" in lines[1]
    assert "request.ended" in lines[-1]
    assert "state=FAILED exit_code=3" in lines[-1]
    assert SECRET not in done.stdout


def test_show_as_json_is_one_event_a_line_with_all_its_data(invoke: Invoke, deployment: Deployment, ended: str) -> None:
    done = invoke("journal", "show", ended, "--json", env=deployment.environ)

    events = json_lines(done.stdout)
    assert all(list(event) == ["v", "seq", "at", "name", "id", "worker", "data"] for event in events)
    assert {event["id"] for event in events} == {ended}
    called = next(event for event in events if event["name"] == "launch.called")
    override = called["data"]["launch_spec"]["run_task"]["overrides"]["containerOverrides"][0]
    assert override["command"] == ["sh", "-c", "exit 3"]
    assert override["environment"] == [{"name": "API_TOKEN", "value": "[redacted]"}]


def test_show_envelope_is_the_request_alone(invoke: Invoke, deployment: Deployment, ended: str) -> None:
    done = invoke("journal", "show", ended, "--envelope", env=deployment.environ)

    (request,) = json_lines(done.stdout)
    assert (request["id"], request["command"]) == (ended, ["sh", "-c", "exit 3"])


def test_show_reports_an_unknown_request(invoke: Invoke, deployment: Deployment, ended: str) -> None:
    done = invoke("journal", "show", "never-submitted", env=deployment.environ)

    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        "the journal has no request never-submitted: it was never submitted, or the journal has dropped it since"
        in done.stderr
    )


@pytest.mark.parametrize("command", [("show", "a"), ("tail",), ("export",)], ids=" ".join)
def test_an_empty_journal_is_reported(
    invoke: Invoke, no_worker_environ: dict[str, str], command: tuple[str, ...]
) -> None:
    shown = invoke("journal", *command, env=no_worker_environ)

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "the journal is empty; workers write it unless `journal` is off" in shown.stderr


def test_what_is_submitted_without_a_worker_is_in_the_journal(
    invoke: Invoke, no_worker_environ: dict[str, str]
) -> None:
    invoke("submit", "--id", "a1", "--", "true", env=no_worker_environ)
    invoke("stop", "a1", env=no_worker_environ)

    shown = invoke("journal", "show", "a1", "--json", env=no_worker_environ)

    assert events_of(shown.stdout) == ["request.submitted", "stop.requested"]


def test_with_the_journal_off_nothing_is_written(invoke: Invoke, no_worker_environ: dict[str, str]) -> None:
    off = {**no_worker_environ, "AIRFLOW__ECS_QUEUE__JOURNAL": "False"}
    invoke("submit", "--id", "a1", "--", "true", env=off)

    assert invoke("journal", "show", "a1", env=off).exit_code == 1


@pytest.fixture
def three_requests_env(invoke: Invoke, no_worker_environ: dict[str, str]) -> dict[str, str]:
    """The environment of a journal with three requests, of which one was asked to stop."""
    for record_id in ("a1", "a2", "a3"):
        assert invoke("submit", "--id", record_id, "--", "true", env=no_worker_environ).exit_code == 0
    invoke("stop", "a2", env=no_worker_environ)
    return no_worker_environ


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["a1", "a2", "a3", "a2"]),
        (["-n", "2"], ["a3", "a2"]),
        (["-n", "0"], []),
        (["--id", "a2"], ["a2", "a2"]),
        (["--id", "a1", "--id", "a3"], ["a1", "a3"]),
        (["--event", "stop.*"], ["a2"]),
        (["--event", "request.submitted", "-n", "1"], ["a3"]),
        (["--worker", "unknown"], []),
    ],
    ids=" ".join,
)
def test_tail_shows_the_newest_selected_events(
    invoke: Invoke, three_requests_env: dict[str, str], options: list[str], expected: list[str]
) -> None:
    shown = invoke("journal", "tail", "--json", *options, env=three_requests_env)

    assert shown.exit_code == 0
    assert [event["id"] for event in json_lines(shown.stdout)] == expected


def test_tail_for_people_is_one_line_an_event(invoke: Invoke, three_requests_env: dict[str, str]) -> None:
    lines = invoke("journal", "tail", "-n", "1", env=three_requests_env).stdout.splitlines()

    assert len(lines) == 1
    assert lines[0].endswith(f"stop.requested  a2  by={acting_user(load_config())} code=ended")


def test_tail_follows_what_comes_until_it_is_interrupted(invoke: Invoke, deployment: Deployment, ended: str) -> None:
    tail = deployment.start("journal", "tail", "-f", "-n", "1", "--event", "request.ended", "--json")
    try:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["name"] == "request.ended", "what was there; now it follows"
        submitted = invoke("submit", "--wait", "--json", "--", "true", env=deployment.environ)
        event = json.loads(tail.stdout.readline())
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 130
    finally:
        tail.kill()
        tail.communicate()

    assert event["name"] == "request.ended"
    assert event["id"] == json_lines(submitted.stdout)[0]["id"]


def test_tail_follows_a_journal_that_begins_empty(no_worker_environ: dict[str, str], invoke: Invoke) -> None:
    deployment = Deployment(no_worker_environ)
    tail = deployment.start("journal", "tail", "-f", "--json")
    try:
        assert tail.stdout is not None
        for record_id in ("a1", "a2"):
            invoke("submit", "--id", record_id, "--", "true", env=no_worker_environ)
        assert [json.loads(tail.stdout.readline())["id"] for _ in range(2)] == ["a1", "a2"]
    finally:
        tail.kill()
        tail.communicate()


def test_what_is_exported_is_imported_into_another_namespace(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    exported = invoke("journal", "export", "-o", str(file), env=three_requests_env)
    assert (exported.exit_code, exported.stdout) == (0, "")
    assert f"4 events in {file}" in exported.stderr

    imported = invoke("journal", "import", str(file), "--namespace", "incident", env=three_requests_env)
    assert imported.exit_code == 0
    assert "4 events imported into namespace incident" in imported.stderr

    here, there = (
        json_lines(invoke("journal", "show", "a2", "--json", "--namespace", namespace, env=three_requests_env).stdout)
        for namespace in ("ecs-queue", "incident")
    )
    assert [{**event, "seq": ""} for event in here] == [{**event, "seq": ""} for event in there]


def test_a_namespace_that_has_a_journal_is_imported_into_only_with_append(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    invoke("journal", "export", "-o", str(file), env=three_requests_env)

    refused = invoke("journal", "import", str(file), env=three_requests_env)
    appended = invoke("journal", "import", str(file), "--append", "--json", env=three_requests_env)

    assert refused.exit_code == 2
    assert (
        "has events already: import into a namespace of its own (--namespace NAME), or give --append" in refused.stderr
    )
    assert json_lines(appended.stdout) == [{"events": 4, "namespace": "ecs-queue"}]
    assert len(json_lines(invoke("journal", "show", "a1", "--json", env=three_requests_env).stdout)) == 2


def test_the_complete_lines_of_a_truncated_file_are_imported(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    invoke("journal", "export", "-o", str(file), env=three_requests_env)
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b'{"end"') - 20])

    imported = invoke("journal", "import", str(file), "--namespace", "incident", env=three_requests_env)

    assert imported.exit_code == 0
    assert "was cut in line 4: that line is skipped, the 3 events before it are used" in imported.stderr
    assert "3 events imported" in imported.stderr


def test_a_file_with_a_bad_line_in_the_middle_is_not_imported_at_all(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "journal.jsonl"
    invoke("journal", "export", "-o", str(file), env=three_requests_env)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:2], "oops\n", *lines[2:]]))

    imported = invoke("journal", "import", str(file), "--namespace", "incident", env=three_requests_env)

    assert imported.exit_code == 2
    assert "line 3: not JSON" in imported.stderr
    assert invoke("journal", "tail", "--namespace", "incident", env=three_requests_env).exit_code == 1


def test_export_writes_to_stdout_and_selects_events(invoke: Invoke, three_requests_env: dict[str, str]) -> None:
    whole = invoke("journal", "export", env=three_requests_env)
    one = invoke("journal", "export", "--id", "a2", "--since", "1h", env=three_requests_env)
    none = invoke("journal", "export", "--until", "2001-01-01T00:00:00Z", env=three_requests_env)

    assert events_of(whole.stdout) == ["request.submitted"] * 3 + ["stop.requested"]
    assert json_lines(whole.stdout)[-1] == {"end": {"events": 4}}
    assert "4 events" in whole.stderr
    assert events_of(one.stdout) == ["request.submitted", "stop.requested"]
    assert (none.exit_code, none.stdout) == (1, "")
    assert "there are no such events" in none.stderr


def test_a_file_that_cannot_be_written_is_reported(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path
) -> None:
    shown = invoke("journal", "export", "-o", str(tmp_path / "no" / "where"), env=three_requests_env)

    assert shown.exit_code == 2
    assert "No such file or directory; nothing was exported" in shown.stderr


def test_an_export_replaces_a_file_when_it_is_complete(
    invoke: Invoke, three_requests_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "journal.jsonl", tmp_path / "link"
    link.symlink_to(file)
    invoke("journal", "export", "--id", "a1", "-o", str(file), env=three_requests_env)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    before = file.read_bytes()

    def fail(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        failed = invoke("journal", "export", "-o", str(file), env=three_requests_env)
    assert (failed.exit_code, file.read_bytes()) == (74, before)
    assert "No space left on device" in failed.stderr

    assert invoke("journal", "export", "-o", str(link), env=three_requests_env).exit_code == 0
    assert file.read_bytes() != before
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.jsonl", "link"]


def test_an_export_to_what_is_no_regular_file_is_written_there(
    invoke: Invoke, three_requests_env: dict[str, str]
) -> None:
    done = invoke("journal", "export", "-o", "/dev/null", env=three_requests_env)

    assert (done.exit_code, Path("/dev/null").is_char_device()) == (0, True)


def test_a_broken_element_hides_nothing_else_and_is_reported(
    invoke: Invoke, three_requests_env: dict[str, str], redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as server:
        element = server.xadd("{ecs-queue}:j:s", {"w": "w", "z": "no zlib"})
        server.rpush("{ecs-queue}:j:r:a2", element)

    for command in (("journal", "show", "a2"), ("journal", "tail"), ("journal", "export"), ("status", "a2")):
        done = invoke(*command, env=three_requests_env)
        assert done.exit_code == 0, command
        assert "a2" in done.stdout or command[1] == "show"
        assert "the journal has 1 broken entries, which are skipped; the first is " in done.stderr


@pytest.mark.parametrize("moment", ["yesterday", "2025-01-31T12:00:00", "5 moons"])
def test_an_invalid_time_is_refused(invoke: Invoke, no_worker_environ: dict[str, str], moment: str) -> None:
    shown = invoke("journal", "export", "--since", moment, env=no_worker_environ)

    assert shown.exit_code == 2
    assert "expected an age such as 90s, 30m, 2h or 7d" in shown.stderr


@pytest.mark.parametrize("command", [("show", "a"), ("tail",), ("export",)], ids=" ".join)
def test_an_unreachable_server_is_reported_in_one_sentence(invoke: Invoke, command: tuple[str, ...]) -> None:
    shown = invoke("journal", *command, env={"AIRFLOW__ECS_QUEUE__BROKER_URL": "redis://:hunter2@127.0.0.1:1/0"})

    assert shown.exit_code == 2
    assert "the journal failed" in shown.stderr
    assert "hunter2" not in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
