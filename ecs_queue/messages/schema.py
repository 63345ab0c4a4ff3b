"""The JSON schemas of the messages, for producers and consumers in other languages.

``python -m ecs_queue.messages.schema docs/schema`` writes them to docs/schema/.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ecs_queue.messages.request import POLICY_VERSION, VERSION, VERSION_2_FIELDS, TaskRequest
from ecs_queue.messages.result import TaskResult
from ecs_queue.protocol.states import TERMINAL_STATES

Message = type[TaskRequest] | type[TaskResult]
#: File name -> the message it describes, and its version.
SCHEMA_FILES: Mapping[str, tuple[Message, int]] = {
    f"task-request.v{VERSION}.json": (TaskRequest, VERSION),
    f"task-request.v{POLICY_VERSION}.json": (TaskRequest, POLICY_VERSION),
    f"task-result.v{VERSION}.json": (TaskResult, VERSION),
}

_SIGNATURE_SCHEMA = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}$",
    "description": "KEY-ID:HMAC-SHA256, the last member of the text; see messages.md.",
}
_SEALED_SCHEMA = {
    "type": "string",
    "description": "command and executor_config, encrypted (Fernet); see messages.md.",
}


def build_schema(message: Message, version: int) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of one version of a message. Other fields are allowed and ignored."""
    schema: dict[str, Any] = msgspec.json.schema(message)
    body: dict[str, Any] = schema["$defs"].pop(message.__name__)
    body["properties"]["v"] = {"const": version}
    body["description"] = " ".join(body["description"].split())
    body["properties"]["signature"] = _SIGNATURE_SCHEMA
    if message is TaskResult:
        body["properties"]["state"] = {"enum": sorted(TERMINAL_STATES)}
    else:
        _allow_sealed(body)
        if version < POLICY_VERSION:
            body["properties"] |= dict.fromkeys(VERSION_2_FIELDS, False)
    others = {"$defs": schema["$defs"]} if schema["$defs"] else {}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **body, **others}


def _allow_sealed(body: dict[str, Any]) -> None:
    """Allow `sealed` in place of the members that it contains."""
    body["properties"]["sealed"] = _SEALED_SCHEMA
    body["required"].remove("command")
    body["oneOf"] = [
        {"required": ["command"], "not": {"required": ["sealed"]}},
        {"required": ["sealed"], "not": {"anyOf": [{"required": ["command"]}, {"required": ["executor_config"]}]}},
    ]


def render_schema(name: str) -> str:
    """Return the content of the schema's file of this name."""
    return json.dumps(build_schema(*SCHEMA_FILES[name]), indent=2) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SCHEMA_FILES:
        (folder / name).write_text(render_schema(name))


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
