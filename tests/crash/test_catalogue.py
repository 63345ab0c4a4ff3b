"""The catalogue of crash points agrees with code, scenarios and docs, and every effect has a crash point."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ecs_queue
from ecs_queue.airflow.ledger_access import LedgerAccess
from ecs_queue.broker.base import Broker, Delivery, ResultConsumer
from ecs_queue.crash_points import ENVIRONMENT_VARIABLE, EXIT_CODE, POINTS, CrashPlan
from ecs_queue.ecs.gateway import EcsGateway
from ecs_queue.errors import UsageError
from ecs_queue.ledger.base import DeadLetters, DeliveryCounts, RequestOperations, RequestSchedule
from tests.airflow.crash_scenarios import SCENARIOS as OF_SCHEDULERS
from tests.crash.scenarios import SCENARIOS
from tests.runner.crash_scenarios import AFTER_THE_CRASH as OF_RUNNERS

PACKAGE = Path(ecs_queue.__file__).parent
#: The modules with the steps of a request.
EFFECT_FILES = sorted(path for folder in ("worker", "airflow", "client") for path in (PACKAGE / folder).glob("*.py"))


def _methods(*interfaces: type) -> set[str]:
    return {name for interface in interfaces for name in vars(interface) if not name.startswith("_")}


#: The end of a variable's name -> the methods of what it holds that have an effect. Without reads, tokens, postponed
#: polls and what has no invariant; without those of LedgerAccess that have crash points inside.
EFFECTS: dict[str, set[str]] = {
    "ledger": _methods(RequestOperations, RequestSchedule, DeliveryCounts, DeadLetters)
    - {"reschedule_poll", "poll_soon", "prune", "list_dead_letters"},
    "broker": _methods(Broker)
    - {"backlog", "check", "close", "consume_requests", "consume_results", "delete_result_queue"},
    "gateway": _methods(EcsGateway) - {"check_cluster", "default_strategy"},
    "delivery": _methods(Delivery) - {"body", "queue", "redelivered"},
    "result_consumer": _methods(ResultConsumer) - {"close"},
    "ledger_access": _methods(LedgerAccess)
    - {"open", "close", "prepare", "pause_journal", "send_in_background", "is_backing_off", "find_problems"}
    - {"receive_results", "get_undelivered_results", "get_records"},
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef))


def crash_points_in(tree: ast.AST) -> list[str]:
    """The points that are reached, by their literal names."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_point":
            (name,) = node.args
            assert isinstance(name, ast.Constant), f"line {node.lineno}: the name of a point is a literal"
            found.append(str(name.value))
    return found


def effect_name(node: ast.AST) -> str:
    """ "ledger.claim" when the node names an effect, else ""."""
    if not isinstance(node, ast.Attribute):
        return ""
    for name, methods in EFFECTS.items():
        if ast.unparse(node.value).endswith(name) and node.attr in methods:
            return f"{name}.{node.attr}"
    return ""


def test_every_point_is_reached_at_one_place_and_every_place_is_in_the_catalogue() -> None:
    reached = Counter(point for path in PACKAGE.rglob("*.py") for point in crash_points_in(parse(path)))
    assert reached == Counter(POINTS.keys())


def test_every_point_has_a_scenario_and_every_scenario_a_point() -> None:
    assert Counter([*SCENARIOS, *OF_SCHEDULERS, *OF_RUNNERS]) == Counter(POINTS.keys())


@pytest.mark.parametrize("path", EFFECT_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_effect_has_a_point(path: Path) -> None:
    """A function with more effects than points has two effects with nothing between them that a test could hit."""
    for function in functions(path):
        calls = [
            effect_name(node.func)
            for node in ast.walk(function)
            if isinstance(node, ast.Call) and effect_name(node.func)
        ]
        calls = [call for call in calls if call.partition(".")[2] != function.name]  # a wrapper's, which only passes on
        points = crash_points_in(function)
        assert len(points) >= len(calls), f"{function.name} does {calls}, its crash points are {points}"


def test_an_effect_that_is_handed_on_is_known_here() -> None:
    """A method that is called under another name would escape the test above."""
    handed_on = set()
    for path in EFFECT_FILES:
        tree = parse(path)
        called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        handed_on |= {effect_name(node) for node in ast.walk(tree) if effect_name(node) and id(node) not in called}
    # Sweeper._launch pops the records; the broker has points of its own where it puts messages back.
    assert handed_on == {"ledger.lease_due_retries", "ledger.lease_unclaimed", "delivery.requeue_at_front"}


def test_the_effects_are_found() -> None:
    """With other variable names, the tests above would check nothing."""
    found = {
        effect_name(node.func) for path in EFFECT_FILES for node in ast.walk(parse(path)) if isinstance(node, ast.Call)
    }
    assert found >= {
        "ledger.put_and_claim",
        "ledger.launched",
        "gateway.run_task",
        "delivery.ack",
        "broker.publish_results",
    }
    assert found >= {
        "ledger.put",
        "ledger.confirm",
        "ledger.update_tasks",
        "gateway.stop_task",
        "result_consumer.drain",
    }
    assert found >= {"ledger_access.adopt", "ledger_access.stop", "ledger_access.confirm", "broker.publish_requests"}


def test_an_armed_process_acts_at_the_nth_reach_of_its_point_only() -> None:
    actions: list[object] = []
    armed = CrashPlan("launch.calling*2,ecs.sending=pause", actions.append, lambda: actions.append("pause"))
    for point in ("launch.call_returned", "launch.calling", "ecs.sending", "ecs.sending", "launch.calling"):
        armed.reach(point)
    assert actions == ["pause", EXIT_CODE]


@pytest.mark.parametrize("text", ["launch.caling", "launch.calling*0", "launch.calling=stop", "launch.calling,"])
def test_a_point_that_does_not_exist_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="expected POINT"):
        CrashPlan(text, lambda code: None, lambda: None)


def test_a_process_that_is_not_armed_passes_by() -> None:
    code = "from ecs_queue.crash_points import *\nfor point in POINTS: crash_point(point)\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "alive\n"


def test_a_process_that_is_armed_dies_without_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "ecs.sending")
    code = (
        "import atexit\nfrom ecs_queue.crash_points import crash_point\n"
        "atexit.register(print, 'bye')\ncrash_point('ecs.sending')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (EXIT_CODE, "")


def test_the_docs_show_the_catalogue() -> None:
    page = (PACKAGE.parent / "docs" / "faults.md").read_text()
    assert [point for point, done in POINTS.items() if f"| `{point}` | {done} |" not in page] == []
