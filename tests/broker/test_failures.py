"""What is said about errors of the broker's server."""

from __future__ import annotations

import pytest
import redis.exceptions

from ecs_queue.broker.failures import wrap_error


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.ResponseError(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
        ),
    ],
)
def test_a_server_that_became_a_replica_is_named_whichever_command_meets_it(error: Exception) -> None:
    assert "broker_url leads to a replica" in str(wrap_error(error))
