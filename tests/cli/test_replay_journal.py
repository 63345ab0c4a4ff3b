"""`replay FILE`: offline, and as traffic."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ecs_queue.client.client import EcsQueue
from tests.cli.conftest import PYTHON, Invoke, json_lines

GOLDEN = Path(__file__).parents[1] / "journal" / "golden" / "v1.jsonl"
#: A program that runs the command with a changed rule.
CHANGED = """
import sys
from ecs_queue.protocol import decisions
decisions.may_relaunch = lambda policy, observation: False
from ecs_queue.cli.main import cli
sys.exit(cli(sys.argv[1:], standalone_mode=False))
"""


class TestOffline:
    def test_identical_decisions_are_status_0(self, invoke: Invoke) -> None:
        shown = invoke("replay", str(GOLDEN), "--offline")

        assert shown.exit_code == 0
        assert shown.stdout.startswith("identical: ")
        assert "decision.poll" in shown.stdout

    def test_a_changed_rule_is_status_1_with_request_event_and_rule(self) -> None:
        command = [PYTHON, "-c", CHANGED, "replay", str(GOLDEN), "--offline"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
        as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)

        assert (shown.returncode, as_json.returncode) == (1, 1)
        (report,) = json_lines(as_json.stdout)
        difference = report["difference"]
        assert report["identical"] is False
        assert (difference["rule"], difference["recorded"], difference["replayed"]) == ("may_relaunch", True, False)
        first = next(
            event
            for event in map(json.loads, GOLDEN.read_text().splitlines())
            if event["name"] == "decision.poll" and (event["data"]["decision"]["update"] or {}).get("may_relaunch")
        )
        assert (difference["id"], difference["seq"]) == (first["id"], first["seq"])
        facts = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines()[1:])
        assert (facts["request"], facts["rule"]) == (first["id"], "may_relaunch")
        assert facts["event"].startswith(f"{first['seq']} (decision.poll, ")

    def test_the_complete_lines_of_a_truncated_file_are_used(self, invoke: Invoke, tmp_path: Path) -> None:
        file = tmp_path / "cut.jsonl"
        file.write_bytes(GOLDEN.read_bytes()[:-30])

        shown = invoke("replay", str(file), "--offline", "--json")

        assert shown.exit_code == 0
        assert "was cut in line" in shown.stderr
        assert json_lines(shown.stdout)[0]["identical"] is True

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "is empty"),
            ("{}\n", "expected a journal event"),
            ('{"v":99}\n', "use a newer one"),
            ('{"v":1,"seq":"1-0.0","at":1.0,"name":"worker.started"}\n', "no decision among them"),
        ],
    )
    def test_a_file_that_cannot_be_used_is_status_2(
        self, invoke: Invoke, tmp_path: Path, content: str, said: str
    ) -> None:
        file = tmp_path / "journal.jsonl"
        file.write_text(content)

        shown = invoke("replay", str(file), "--offline")

        assert (shown.exit_code, shown.stdout) == (2, "")
        assert said in shown.stderr

    def test_no_server_is_needed(self, invoke: Invoke) -> None:
        shown = invoke("replay", str(GOLDEN), "--offline", "--broker-url", "redis://127.0.0.1:1/0")

        assert shown.exit_code == 0


@pytest.fixture
def recorded(invoke: Invoke, no_worker_environ: dict[str, str], tmp_path: Path) -> Path:
    """Three requests, the last of another queue and with a secret."""
    secret = json.dumps({"environment": [{"name": "TOKEN", "value": "hunter2"}]})
    invoke("submit", "--id", "a1", "--priority", "7", "--", "echo", "1", env=no_worker_environ)
    invoke("submit", "--id", "a2", "--", "echo", "2", env=no_worker_environ)
    invoke(
        "submit", "--id", "a3", "--queue", "etl", "--executor-config", secret, "--", "echo", "3", env=no_worker_environ
    )
    file = tmp_path / "traffic.jsonl"
    assert invoke("journal", "export", "-o", str(file), env=no_worker_environ).exit_code == 0
    return file


def commands_in(environ: dict[str, str], namespace: str) -> dict[str, tuple[list[str], str, int]]:
    """id -> command, queue and priority of what waits there."""
    from ecs_queue.messages.envelope import decode_request

    with EcsQueue.from_config(environ=environ, overrides={"namespace": namespace}, owner="") as queue:
        found = queue.ledger.get_with_payload([record.id for record in queue.ledger.list_records("", 100)[0]])
    requests = [decode_request(record.request) for record in found if record is not None]
    return {request.id: (request.command, request.queue, request.priority) for request in requests}


class TestTraffic:
    def test_the_same_requests_are_submitted_again_as_new_ones(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path
    ) -> None:
        arguments = ("replay", str(recorded), "--submit", "--speed", "1000", "--namespace", "load-test", "--json")
        shown = invoke(*arguments, env=no_worker_environ)

        assert shown.exit_code == 0, shown.stderr
        (report,) = json_lines(shown.stdout)
        assert (report["submitted"], report["requests"], report["redacted"]) == (3, 3, 1)
        assert report["queues"] == {"default": 2, "etl": 1}
        assert "1 request with [redacted]" in shown.stderr
        found = commands_in(no_worker_environ, "load-test")
        assert {record_id.partition("-r-")[0]: request for record_id, request in found.items()} == {
            "a1": (["echo", "1"], "default", 7),
            "a2": (["echo", "2"], "default", 0),
            "a3": (["echo", "3"], "etl", 0),
        }
        assert not {"a1", "a2", "a3"} & found.keys(), "they are new requests"

    def test_a_dry_run_only_shows_what_would_be_submitted(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path
    ) -> None:
        shown = invoke("replay", str(recorded), "--submit", "--speed", "10", "--dry-run", env=no_worker_environ)
        as_json = invoke("replay", str(recorded), "--submit", "--dry-run", "--json", env=no_worker_environ)

        assert (shown.exit_code, as_json.exit_code) == (0, 0)
        assert "3 (default 2, etl 1)" in shown.stdout
        assert "dry run: nothing was submitted" in shown.stderr
        assert json_lines(as_json.stdout)[0]["dry_run"] is True
        assert commands_in(no_worker_environ, "ecs-queue").keys() == {"a1", "a2", "a3"}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], "namespace ecs-queue may be production"),
            (["--yes-i-mean", "other"], "--yes-i-mean names other, the namespace is ecs-queue"),
            (["--namespace", "load-test", "--yes-i-mean", "prod"], "--yes-i-mean names prod"),
        ],
    )
    def test_a_namespace_that_may_be_production_is_refused(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path, options: list[str], said: str
    ) -> None:
        shown = invoke("replay", str(recorded), "--submit", *options, env=no_worker_environ)

        assert (shown.exit_code, shown.stdout) == (2, "")
        assert said in shown.stderr
        assert "nothing was submitted" in shown.stderr
        assert commands_in(no_worker_environ, "ecs-queue").keys() == {"a1", "a2", "a3"}

    def test_a_confirmed_namespace_is_accepted(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path
    ) -> None:
        arguments = ("replay", str(recorded), "--submit", "--speed", "1000", "--yes-i-mean", "ecs-queue")
        shown = invoke(*arguments, env=no_worker_environ)

        assert shown.exit_code == 0
        assert shown.stdout.startswith("3 requests submitted in ")
        assert len(commands_in(no_worker_environ, "ecs-queue")) == 6

    def test_requests_that_are_not_valid_here_are_named_and_left_out(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path
    ) -> None:
        recorded.write_text(recorded.read_text().replace('"environment":', '"nonsense":'))
        arguments = ("replay", str(recorded), "--submit", "--speed", "1000", "--namespace", "load-test", "--json")

        shown = invoke(*arguments, env=no_worker_environ)

        assert shown.exit_code == 1
        assert "replay: left out: a3: " in shown.stderr
        (report,) = json_lines(shown.stdout)
        assert (report["submitted"], report["invalid"]) == (2, 1)
        found = commands_in(no_worker_environ, "load-test")
        assert {record_id.partition("-r-")[0] for record_id in found} == {"a1", "a2"}

    def test_a_file_without_a_valid_request_is_refused(
        self, invoke: Invoke, no_worker_environ: dict[str, str], recorded: Path
    ) -> None:
        recorded.write_text(recorded.read_text().replace('"command":[', '"command":["' + "x" * 9000 + '",'))

        shown = invoke("replay", str(recorded), "--submit", "--namespace", "load-test", env=no_worker_environ)

        assert shown.exit_code == 2
        assert "nothing was submitted" in shown.stderr
        assert commands_in(no_worker_environ, "load-test") == {}

    def test_a_file_without_requests_is_refused(
        self, invoke: Invoke, no_worker_environ: dict[str, str], tmp_path: Path
    ) -> None:
        file = tmp_path / "journal.jsonl"
        file.write_text('{"v":1,"seq":"1-0.0","at":1.0,"name":"worker.started"}\n')

        shown = invoke("replay", str(file), "--submit", "--namespace", "test", env=no_worker_environ)

        assert shown.exit_code == 2
        assert "has no request that could be submitted again" in shown.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "expected one of --offline, --submit, found none"),
        (["--offline", "--submit"], "expected one of --offline, --submit, found --submit and --offline"),
        (["--offline", "--speed", "2"], "--speed has no effect with --offline"),
        (["--submit", "--speed", "0"], "expected a number above 0"),
        (["--submit", "--speed", "nan"], "expected a number, found 'nan'"),
    ],
    ids=str,
)
def test_invalid_options_for_a_file_are_refused(
    invoke: Invoke, no_worker_environ: dict[str, str], options: list[str], said: str
) -> None:
    shown = invoke("replay", str(GOLDEN), *options, env=no_worker_environ)

    assert shown.exit_code == 2
    assert said in shown.stderr


def test_a_missing_file_is_named(invoke: Invoke, tmp_path: Path) -> None:
    shown = invoke("replay", str(tmp_path / "none.jsonl"), "--offline")

    assert shown.exit_code == 2
    assert "none.jsonl" in shown.stderr
