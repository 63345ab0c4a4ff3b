"""Reads values that stand in AWS: `ssm:/path` and `secretsmanager:name`, each with `#member` of a JSON object."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ecs_queue.errors import ConfigError

#: Time limits of one call, in seconds; a call is tried twice at most.
_CONNECT_TIMEOUT, _READ_TIMEOUT, _ATTEMPTS = 5, 5, 2
#: A name of Secrets Manager has no `#`, and the path of a parameter neither.
_REFERENCE = re.compile(
    r"(?P<service>ssm|secretsmanager):(?P<name>(?:/|arn:)[^\s#]+|(?<=secretsmanager:)[^\s#]+)(?:#(?P<member>.+))?"
)
_ARN_REGION = re.compile(r"arn:[\w-]+:(?:ssm|secretsmanager):(?P<region>[\w-]+):")


def is_reference(text: str) -> bool:
    """Return whether a value of the configuration names one in AWS. A signing key whose ID is `ssm` does not."""
    return _REFERENCE.fullmatch(text) is not None


class AwsSecrets:
    """Reads each value once. It uses boto3's own credentials and Region; an ARN has its Region in it."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], str] = {}
        self._clients: dict[tuple[str, str], Any] = {}

    def read(self, reference: str) -> str:
        """Return the value.

        Raises:
            ConfigError: It cannot be read. The message names the reference, never the value.
        """
        parts = _REFERENCE.fullmatch(reference)
        if parts is None:
            raise ConfigError(f"expected ssm:/path or secretsmanager:name, found {reference!r}")
        key = (parts["service"], parts["name"])
        if key not in self._values:
            self._values[key] = self._call(reference, *key)
        text = self._values[key]
        return text if parts["member"] is None else _member(text, reference, parts["member"])

    def _call(self, reference: str, service: str, name: str) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self._client(service, name)
            if service == "ssm":
                found = client.get_parameter(Name=name, WithDecryption=True)["Parameter"].get("Value")
            else:
                found = client.get_secret_value(SecretId=name).get("SecretString")
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            raise ConfigError(f"expected {reference} to be readable, found {code}; {_advice(service)}") from None
        except BotoCoreError as error:
            raise ConfigError(
                f"expected {reference} to be readable, found {type(error).__name__}; {_advice(service)}"
            ) from None
        if not isinstance(found, str) or not found.strip():
            raise ConfigError(f"expected {reference} to hold text, found none")
        return found.strip()

    def _client(self, service: str, name: str) -> Any:
        arn = _ARN_REGION.match(name)
        region = arn["region"] if arn else ""
        if (service, region) not in self._clients:
            import boto3
            from botocore.config import Config as ClientConfig

            limits = ClientConfig(
                connect_timeout=_CONNECT_TIMEOUT, read_timeout=_READ_TIMEOUT, retries={"total_max_attempts": _ATTEMPTS}
            )
            session = boto3.session.Session()  # the default one is not thread-safe
            # boto3 does not read AWS_REGION, the variable that Amazon ECS sets in a container.
            found = region or session.region_name or os.environ.get("AWS_REGION")
            client: Any = session.client(service, region_name=found, config=limits)
            self._clients[service, region] = client
        return self._clients[service, region]


def _advice(service: str) -> str:
    action = "ssm:GetParameter" if service == "ssm" else "secretsmanager:GetSecretValue"
    return f"check the name, the Region (AWS_REGION), the credentials and {action} (conf/iam-secrets-policy.json)"


def _member(text: str, reference: str, member: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"expected {reference} to hold a JSON object, found other text") from None
    value = found.get(member) if isinstance(found, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"expected {reference} to hold a JSON object with the text member {member!r}, found none")
    return value.strip()
