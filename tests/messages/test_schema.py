"""The published JSON schemas: up to date, and of one mind with the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ecs_queue.messages.schema import SCHEMA_FILES, build_schema, render_schema, write_schemas
from tests.messages.golden_messages import GOLDEN

_PUBLISHED = Path(__file__).parents[2] / "docs" / "schema"


def _validator(kind: str, version: int = 1) -> Any:
    schema = json.loads((_PUBLISHED / f"task-{kind}.v{version}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("name", SCHEMA_FILES)
def test_the_published_schema_is_up_to_date(name: str) -> None:
    assert (_PUBLISHED / name).read_text() == render_schema(name)


def test_nothing_else_is_published_as_a_schema() -> None:
    assert {path.name for path in _PUBLISHED.iterdir()} == set(SCHEMA_FILES)


def test_writing_makes_the_published_files(tmp_path: Path) -> None:
    write_schemas(tmp_path / "schema")
    made = {path.name: path.read_text() for path in (tmp_path / "schema").iterdir()}
    assert made == {name: render_schema(name) for name in SCHEMA_FILES}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("re*-v*.json")))
def test_the_schema_accepts_every_golden_message(name: str) -> None:
    kind, version, _ = name.split("-", 2)
    _validator(kind, int(version[1:])).validate(json.loads((GOLDEN / f"{name}.json").read_text()))


def test_the_first_version_of_a_request_has_no_launch_policies() -> None:
    request = json.loads((GOLDEN / "request-v2-start-timeout.json").read_text())
    assert not _validator("request").is_valid(request | {"v": 1})


@pytest.mark.parametrize(
    "name",
    [
        "another-kind",
        "id-too-long",
        "id-with-line-break",
        "list",
        "milliseconds",
        "missing-field",
        "no-command",
        "unknown-version",
        "unknown-version-of-another-shape",
        "wrong-type",
    ],
)
def test_the_schema_refuses_what_the_decoder_refuses(name: str) -> None:
    message = json.loads((GOLDEN / f"undecodable-{name}.json").read_text())
    assert not _validator("request").is_valid(message)


def test_every_schema_stands_alone() -> None:
    for message, version in SCHEMA_FILES.values():
        assert "$ref" not in json.dumps(build_schema(message, version))
