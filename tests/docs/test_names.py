"""Names that were retired from the package stay retired (one standard term for each thing), and tests stand alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ecs_queue.ledger.base import Ledger
from ecs_queue.ledger.contracts import read_contracts
from ecs_queue.telemetry import EVENTS
from tests.docs import ROOT


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODULES = _names(
    """
    again ages announce answers asking breaking bucket circuit crashpoints definition desk draft ends
    environment examine explain facts fleet flights flow gates intake judge keeper lanes lean leftovers letters
    lifecycle limits listing look missing names offline orders outage pace parts past plan quota reports
    restore returns rules sending shapes slots spelling stops stream suspects sweep together tokens track trust
    verdict view vitals waiting wire workshop
    """
)
#: No name of a class, function, parameter or field has one of these words.
WORDS = _names(
    """
    announcer burial buried burnt bury crowd dirty doubt draft drafts flights hasten heard intake judge lane
    lanes leftovers pace rung say slots spelling stray suspects told together tracker unsure verdict vitals whoever
    workshop
    """
)
CLASSES = _names(
    """
    Answer Desk Ends Gate Gates Letter Plan Report Step Suspects Trust Word Write
    """
)
OPERATIONS = _names(
    """
    bury check counts dead discard event_flows hasten hold id_of let_go letters none note_events outcomes page
    pause paused rest resume take throttled undelivered unsure workers
    """
)
RETIRED_EVENTS = _names(
    """
    decision.call decision.list decision.look decision.missing decision.step describe.trouble event.foreign
    event.unusable events.doubted events.trouble events.trusted health journal.dropped journal.trouble
    launch.due launch.found launch.looked launch.lost_claim launch.stray launch.unsure quota.lowered
    request.dead stop.answered stop.asked stop.trouble task.retry task.status task.stop
    """
)


def find_names(tree: ast.AST) -> Iterator[str]:
    """The classes, functions, parameters and fields (also those of instances) that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (ast.unparse(field.target) for field in node.body if isinstance(field, ast.AnnAssign))
        if isinstance(node, ast.arg):
            yield node.arg
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def split_words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}


def test_no_module_bears_a_retired_name() -> None:
    paths = [path for path in (ROOT / "ecs_queue").rglob("*.py") if path.stem in MODULES]
    assert [str(path.relative_to(ROOT)) for path in paths] == []


def test_no_class_function_parameter_or_field_bears_a_retired_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "ecs_queue").rglob("*.py"))
        for name in find_names(ast.parse(path.read_text()))
        if name in CLASSES or split_words(name) & WORDS
    ]
    assert found == []


def test_no_ledger_operation_bears_a_retired_name() -> None:
    assert OPERATIONS & read_contracts(*Ledger.__bases__).keys() == set()


def test_no_event_bears_a_retired_name() -> None:
    assert RETIRED_EVENTS & EVENTS.keys() == set()


def test_no_test_module_imports_another() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {node.module}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and re.search(r"\.test_\w+$", node.module or "")
    ]
    assert found == []
