"""AWS JSON 1.1 as ECS uses it: targets, parameters, errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import EcsQueueError

TARGET_PREFIX = "AmazonEC2ContainerServiceV20141113"
CONTENT_TYPE = "application/x-amz-json-1.1"


class ApiError(EcsQueueError):
    """An error response with AWS's code. It never leaves the server as an exception."""

    def __init__(self, code: str, message: str, status: int = 400, **members: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = members

    def body(self) -> bytes:
        """Return the JSON from which boto3 makes its exception."""
        return msgspec.json.encode({"__type": self.code, "message": self.message, **self.members})


def invalid_parameter(message: str) -> ApiError:
    """Return InvalidParameterException, HTTP 400."""
    return ApiError("InvalidParameterException", message)


def client_exception(message: str) -> ApiError:
    """Return ClientException, HTTP 400."""
    return ApiError("ClientException", message)


def access_denied(action: str, resource: str) -> ApiError:
    """Return AccessDeniedException, HTTP 400, in AWS's words."""
    return ApiError(
        "AccessDeniedException",
        f"User: arn:aws:iam::123456789012:user/local is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action",
    )


def cluster_not_found() -> ApiError:
    """Return ClusterNotFoundException with AWS's message."""
    return ApiError("ClusterNotFoundException", "Cluster not found.")


def operation_name(headers: Mapping[str, str]) -> str:
    """Return the name in `X-Amz-Target: AmazonEC2ContainerServiceV20141113.NAME`; ApiError otherwise."""
    target = headers.get("X-Amz-Target", "")
    prefix, _, operation = target.partition(".")
    if prefix != TARGET_PREFIX or not operation:
        raise ApiError(
            "UnknownOperationException",
            f"expected the header X-Amz-Target: {TARGET_PREFIX}.<operation>, found {target!r}: "
            "this server has the ECS API only, set AWS_ENDPOINT_URL_ECS to it instead of AWS_ENDPOINT_URL",
        )
    return operation


def decode_parameters(body: bytes) -> dict[str, Any]:
    """Return the parameters of a call; none for an empty body. ApiError when it is not a JSON object."""
    try:
        return msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ApiError("SerializationException", f"the body is not a JSON object: {error_text(error)}") from None
