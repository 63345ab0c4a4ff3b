"""AWS JSON 1.1 as ECS speaks it: targets, errors, answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.errors import EcsQueueError

TARGET_PREFIX = "AmazonEC2ContainerServiceV20141113"
CONTENT_TYPE = "application/x-amz-json-1.1"


class ApiError(EcsQueueError):
    """An error answer of the endpoint, by AWS's code; it never leaves the server as an exception."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members

    def body(self) -> bytes:
        """The JSON that boto3 makes its exception from."""
        return msgspec.json.encode({"__type": self.code, "message": self.message, **self.members})


def invalid_parameter(message: str) -> ApiError:
    """InvalidParameterException, HTTP 400."""
    return ApiError("InvalidParameterException", message)


def client_exception(message: str) -> ApiError:
    """ClientException, HTTP 400."""
    return ApiError("ClientException", message)


def cluster_not_found() -> ApiError:
    """ClusterNotFoundException with AWS's sentence."""
    return ApiError("ClusterNotFoundException", "Cluster not found.")


def operation_name(headers: Mapping[str, str]) -> str:
    """The name in ``X-Amz-Target: AmazonEC2ContainerServiceV20141113.NAME``; ApiError otherwise."""
    target = headers.get("X-Amz-Target", "")
    prefix, _, operation = target.partition(".")
    if prefix != TARGET_PREFIX or not operation:
        raise ApiError(
            "UnknownOperationException",
            f"expected the header X-Amz-Target: {TARGET_PREFIX}.<operation>, found {target!r}: "
            "this speaks ECS only, point AWS_ENDPOINT_URL_ECS at it rather than AWS_ENDPOINT_URL",
        )
    return operation


def decode_parameters(body: bytes) -> dict[str, Any]:
    """The parameters of a call; an empty body is no parameters. ApiError when it is no JSON object."""
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ApiError("SerializationException", f"the body is no JSON object: {error}") from None
