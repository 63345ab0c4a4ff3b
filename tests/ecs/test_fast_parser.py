"""The fast parser returns what botocore's parser returns, except for times."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_queue.ecs.clients import EcsClients, Target
from tests.ecs.scripted_endpoint import ScriptedEndpoint, ScriptedReply, error_reply

TASK = {"taskArn": "a", "containers": [{"exitCode": 3}], "overrides": {}, "startedAt": 1_700_000_000.25}


@pytest.mark.parametrize(
    ("result", "members"),
    [
        ({"tasks": [TASK], "failures": []}, {"tasks": [TASK], "failures": []}),
        ({"tasks": [TASK]}, {"tasks": [TASK], "failures": []}),
        ({}, {"tasks": [], "failures": []}),
        ({"tasks": {}, "failures": None}, {"tasks": [], "failures": []}),
    ],
)
def test_a_good_response_keeps_its_members_and_botocores_metadata(
    clients: EcsClients, target: Target, endpoint: ScriptedEndpoint, result: Any, members: dict[str, Any]
) -> None:
    endpoint.enqueue(ScriptedReply(json.dumps(result).encode()))
    parsed = clients.client(target).describe_tasks(tasks=["a"])
    assert parsed["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert {key: parsed[key] for key in members} == members


def test_an_error_is_botocores_own(clients: EcsClients, target: Target, endpoint: ScriptedEndpoint) -> None:
    endpoint.enqueue(error_reply("ClusterNotFoundException", "Cluster not found."))
    client = clients.client(target)
    with pytest.raises(client.exceptions.ClusterNotFoundException, match="Cluster not found"):
        client.describe_tasks(tasks=["a"])
