"""The states, their transition table, and the page that draws it."""

from __future__ import annotations

import re
from pathlib import Path

from ecs_queue.protocol.states import LIVE_STATES, TERMINAL_STATES, TRANSITIONS, State

Transition = tuple[State | None, State]

_PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text()


def _state(name: str, nothing: str) -> State | None:
    return None if name == nothing else State(name)


def _diagram() -> tuple[dict[str, set[Transition]], set[State]]:
    """The moves by operation, and the states that lead to the end, as the mermaid diagram has them."""
    found = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)\n```", _PAGE, re.DOTALL)
    assert found
    transitions: dict[str, set[Transition]] = {}
    ends: set[State] = set()
    for line in found[1].splitlines():
        arrow = re.fullmatch(r"    (\S+) --> ([^:\s]+)(?:: (.+))?", line)
        assert arrow, line
        if arrow[2] == "[*]":
            ends.add(State(arrow[1]))
            continue
        for operation in arrow[3].split(", "):
            transitions.setdefault(operation, set()).add((_state(arrow[1], "[*]"), State(arrow[2])))
    return transitions, ends


def _table() -> dict[str, set[Transition]]:
    """The moves by operation as the table under the diagram has them."""
    rows = re.findall(r"^\| (\w+) \| (\w+|-) \| ([A-Z]+) \| \S.* \|$", _PAGE, re.MULTILINE)
    transitions: dict[str, set[Transition]] = {}
    for operation, start, end in rows:
        transitions.setdefault(operation, set()).add((_state(start, "-"), State(end)))
    return transitions


def test_the_diagram_in_the_docs_is_the_transition_table() -> None:
    transitions, ends = _diagram()
    assert transitions == TRANSITIONS
    assert ends == TERMINAL_STATES


def test_the_table_in_the_docs_is_the_transition_table() -> None:
    assert _table() == TRANSITIONS


def test_the_docs_explain_every_state() -> None:
    assert re.findall(r"^\| ([A-Z]+) \| \S.* \|$", _PAGE, re.MULTILINE) == [state.value for state in State]


def test_a_state_is_either_live_or_terminal() -> None:
    assert frozenset(State) == LIVE_STATES | TERMINAL_STATES
    assert not LIVE_STATES & TERMINAL_STATES


def test_no_transition_leaves_a_terminal_state_or_stays_where_it_is() -> None:
    for transitions in TRANSITIONS.values():
        for start, end in transitions:
            assert start not in TERMINAL_STATES
            assert start is not end


def test_every_state_can_be_reached_and_every_live_one_can_end() -> None:
    transitions = {move for transitions in TRANSITIONS.values() for move in transitions}
    reached: set[State | None] = {None}
    while more := {end for start, end in transitions if start in reached} - reached:
        reached |= more
    assert reached == {None, *State}
    for state in LIVE_STATES:
        assert {end for start, end in transitions if start is state} & TERMINAL_STATES
