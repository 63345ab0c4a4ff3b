"""A timeline on the screen, in a pipe and as JSON."""

from __future__ import annotations

import io
import sys

import pytest

from ecs_queue.cli.ui import timeline_view
from ecs_queue.cli.ui.timeline_view import print_timeline, timeline_summary, timeline_to_dicts
from ecs_queue.journal.timeline import LaunchTimeline, Timeline
from ecs_queue.protocol.phases import Phase
from ecs_queue.server_keys import ledger_prefix
from tests.cli.conftest import Deployment, Invoke, json_lines, run_failing_request

_T = 1_700_000_000.0
_ARN = "arn:aws:ecs:eu-west-1:123456789012:task/production/0123456789abcdef0123456789abcdef"
TIMELINE = Timeline(
    id="job",
    start=_T,
    end=_T + 100,
    is_complete=True,
    launches=[
        LaunchTimeline(
            launch=1,
            attempt=1,
            worker="w1",
            arn=_ARN,
            run_task_calls=2,
            result="retried",
            reason="CannotPullContainerError: \x1b[31mno such image",
            phases=[
                Phase("wait", _T, _T + 25),
                Phase("launch", _T + 25, _T + 25.001),
                Phase("pull", _T + 25.001, _T + 50),
            ],
        ),
        LaunchTimeline(
            launch=3,
            attempt=2,
            worker="w2",
            result="FAILED",
            exit_code=3,
            reason="Essential container exited",
            phases=[Phase("wait", _T + 50, _T + 75), Phase("run", _T + 75, _T + 100)],
        ),
    ],
)


@pytest.mark.parametrize("columns", [80, 120])
def test_bars_of_all_attempts_stand_on_one_axis(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timeline_view, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    print_timeline(TIMELINE, _T + 200)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= columns
    bars: dict[str, list[tuple[int, int]]] = {}
    for line in lines:
        words = line.split()
        if words and words[0] in ("wait", "launch", "pull", "run"):
            filled = [place for place, character in enumerate(line) if character in "▏▎▍▌▋▊▉█▐▕"]
            bars.setdefault(words[0], []).append((filled[0], filled[-1]))
    first, second = bars["wait"]
    width = second[1] - first[0]
    assert first[1] - first[0] == pytest.approx(second[1] - second[0], abs=1)  # both took 25 s
    assert second[0] == pytest.approx(first[0] + width * 2 / 3, abs=2)
    assert bars["launch"]  # a millisecond can be seen
    assert bars["pull"][0][0] >= bars["launch"][0][0]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_whose_encoding_has_no_bars_gets_plain_lines(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(timeline_view, "is_terminal", lambda: True)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    print_timeline(TIMELINE, _T + 200)
    lines = [line.split() for line in written.getvalue().decode().splitlines()]
    assert ["attempt", "2,", "launch", "3,", "worker", "w2"] in lines
    assert ["run", "25.0", "s"] in lines


def test_a_pipe_gets_plain_lines(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_timeline(TIMELINE, _T + 200)
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "",
        "attempt 1, 2 RunTask calls, worker w1",
        "",
        "attempt 2, launch 3, worker w2",
    ]
    assert [line.split() for line in lines if line.startswith("  wait")] == [["wait", "25.0", "s"]] * 2
    assert f"  {_ARN}" in lines
    assert "  FAILED, exit 3: Essential container exited" in lines
    assert "\x1b" not in "".join(lines)


def test_a_phase_that_goes_on_is_marked(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    waits = LaunchTimeline(launch=1, attempt=1, reason="Rate exceeded", phases=[Phase("wait", _T)])
    print_timeline(Timeline(id="job", start=_T, launches=[waits]), _T + 30)
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert lines[2].split() == ["wait", "30.0", "s", "so", "far"]
    assert lines[3] == "  waits: Rate exceeded"


def test_a_request_that_was_never_launched_has_no_attempt(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    stopped = LaunchTimeline(launch=1, attempt=0, result="REVOKED", reason="stopped by ana")
    print_timeline(Timeline(id="job", start=_T, launches=[stopped]), _T + 30)
    assert capsysbinary.readouterr().out.decode().splitlines()[1] == "no attempt, launch 1"


def test_json_has_every_phase_with_its_seconds() -> None:
    first, second = timeline_to_dicts(TIMELINE)
    assert [(phase["name"], phase["seconds"]) for phase in first["phases"]][::2] == [("wait", 25.0), ("pull", 24.999)]
    assert (second["launch"], second["result"], second["exit_code"], second["task_arn"]) == (3, "FAILED", 3, None)
    assert second["phases"][1]["end"] == "2023-11-14T22:15:00Z"
    assert timeline_summary(TIMELINE)["state"] == "FAILED"


def test_status_draws_a_request_of_the_stack_and_the_journal_outlives_the_record(
    invoke: Invoke, deployment: Deployment
) -> None:
    run_failing_request(deployment, "drawn", ["sh", "-c", "exit 3"], {})
    (facts,) = json_lines(invoke("status", "drawn", "--json", env=deployment.environ).stdout)
    (attempt,) = facts["timeline"]
    names = [phase["name"] for phase in attempt["phases"]]
    assert names == [name for name in ("wait", "launch", "provision", "pull", "start", "run", "stop") if name in names]
    assert {"wait", "launch", "provision", "pull", "run"} <= set(names)
    assert (attempt["result"], attempt["exit_code"], attempt["task_arn"]) == ("FAILED", 3, facts["task_arn"])
    assert attempt["worker"] == facts["worker"] == "local-1"
    shown = invoke("status", "drawn", env=deployment.environ).stdout
    assert "attempt 1, worker local-1" in shown
    with deployment.make_client() as queue:
        queue.ledger._redis.delete(f"{ledger_prefix(queue.config.namespace)}r:drawn")  # type: ignore[attr-defined]
    gone = invoke("status", "drawn", env=deployment.environ)
    assert gone.exit_code == 0
    assert "this is what the journal has" in gone.stderr
    assert "FAILED, exit 3" in gone.stdout
    (facts,) = json_lines(invoke("status", "drawn", "--json", env=deployment.environ).stdout)
    assert (facts["id"], facts["state"], facts["exit_code"]) == ("drawn", "FAILED", 3)
