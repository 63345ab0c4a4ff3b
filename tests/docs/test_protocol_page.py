"""docs/protocol.md lists the operations of every role of the ledger, with their results and barriers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Protocol

import pytest

from ecs_queue.ledger import base
from ecs_queue.ledger.contracts import OperationContract, read_contracts
from ecs_queue.protocol.operations import ResultCode
from ecs_queue.protocol.record import Record
from ecs_queue.runs.operations import RunnerOperations

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
ROLES = [*(role for role in base.Ledger.__bases__ if role is not Protocol), RunnerOperations]


def _rows(role: type) -> list[list[str]]:
    """The cells of the table of a role, which follows the role's name."""
    module = role.__module__ if role is RunnerOperations else base.__name__
    section = re.split(r"\n#|\n`ecs_queue\.", PAGE.split(f"`{module}.{role.__name__}`")[1])[0]
    rows = re.findall(r"^\| (`.*) \|$", section, re.MULTILINE)
    return [row.split(" | ") for row in rows]


def _contract(cells: list[str]) -> OperationContract:
    results, barrier = cells[-2:]
    assert barrier in ("yes", "no")
    codes = re.findall(r"`([A-Z_]+)`", results)
    return OperationContract(frozenset(ResultCode[code] for code in codes), barrier == "yes")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.__name__)
def test_the_table_of_a_role_equals_its_protocol_class(role: type) -> None:
    described = {cells[0].strip("`").split("(")[0]: _contract(cells) for cells in _rows(role)}

    if role is RunnerOperations:  # it imports no contracts: a barrier follows what allows a start or an exit
        expected = {
            name: OperationContract(has_barrier=name in ("next_turn", "wait_for_turn", "leave"))
            for name in read_contracts(role)
        }
    else:
        expected = read_contracts(role)
    assert list(described.items()) == list(expected.items())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.__name__)
def test_the_table_names_the_parameters(role: type) -> None:
    signatures = {name: inspect.signature(getattr(role, name)).parameters for name in read_contracts(role)}
    expected = [f"`{name}({', '.join(list(parameters)[1:])})`" for name, parameters in signatures.items()]

    assert [cells[0] for cells in _rows(role)] == expected


def test_every_result_code_is_explained() -> None:
    described = {code for role in ROLES for cells in _rows(role) for code in _contract(cells).results}

    assert described == set(ResultCode)


def test_the_fields_of_the_record_are_all_described() -> None:
    table = PAGE.split("## The record")[1].split("\n### ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)

    assert {field for row in rows for field in re.findall(r"`(\w+)`", row)} == set(Record.__struct_fields__)
