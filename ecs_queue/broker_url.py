"""The URL of a broker that is no Redis, read without a connection.

    amqp://USER:PASSWORD@HOST:5672/VHOST       RabbitMQ; amqps:// with TLS; Celery's pyamqp:// is the same
    sqs://?region=eu-west-1                    Amazon SQS; boto3 finds credentials, Region and endpoint by itself

No error shows a part of the URL that may belong to a password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ecs_queue.errors import ConfigError
from ecs_queue.payload_repr import PayloadRepr

#: Scheme -> that of the URL that kombu gets.
_AMQP_SCHEMES = {"amqp": "amqp", "amqps": "amqps", "pyamqp": "amqp"}
_AMQP_OPTIONS = ("heartbeat", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_SQS_OPTIONS = ("region", "endpoint_url")
_CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
#: Seconds. RabbitMQ's default is 60, after which a worker would notice that a server does not answer.
_DEFAULT_HEARTBEAT, _MAX_HEARTBEAT = 10, 300
_HOST = re.compile(r"[A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\]")
BROKER_SCHEMES = (*_AMQP_SCHEMES, "sqs")


@dataclass(frozen=True, slots=True, repr=False)
class AmqpUrl(PayloadRepr):
    """What the URL of a RabbitMQ says.

    Attributes:
        location: The URL without options, of the scheme amqp.
        tls: py-amqp's options of TLS; None without TLS.
        heartbeat: The seconds between heartbeats.
    """

    location: str = field(repr=False)
    tls: Mapping[str, Any] | None = field(repr=False)
    heartbeat: int


@dataclass(frozen=True, slots=True)
class SqsUrl:
    """What the URL of SQS says; None leaves a value to boto3's configuration."""

    region: str | None
    endpoint_url: str | None


def is_amqp_url(url: str) -> bool:
    """Return whether the scheme is one of RabbitMQ."""
    return _scheme(url) in _AMQP_SCHEMES


def is_sqs_url(url: str) -> bool:
    """Return whether the scheme is that of SQS."""
    return _scheme(url) == "sqs"


def holds_no_records(url: str) -> bool:
    """Return whether this is a broker that cannot be the ledger's server."""
    return is_amqp_url(url) or is_sqs_url(url)


def check_broker_url(url: str) -> None:
    """Raise ConfigError when the URL of a RabbitMQ or of SQS cannot be used."""
    (parse_sqs_url if is_sqs_url(url) else parse_amqp_url)(url)


def parse_amqp_url(url: str) -> AmqpUrl:
    """Return what the URL of a RabbitMQ says; its certificate and name are verified unless the URL says otherwise.

    Raises:
        ConfigError: It cannot be used.
    """
    location, options = _split(url, _AMQP_OPTIONS)
    if re.search(r"[;,]", location):
        raise ConfigError("it names several servers; use a load balancer, or one DNS name for all nodes")
    scheme = _AMQP_SCHEMES[_scheme(url)]
    parts = _parse_location(location)
    return AmqpUrl(
        location=f"amqp://{location}",
        tls=_parse_tls(options, parts) if scheme == "amqps" else None,
        heartbeat=_parse_heartbeat(options.get("heartbeat", str(_DEFAULT_HEARTBEAT))),
    )


def parse_sqs_url(url: str) -> SqsUrl:
    """Return what the URL of SQS says.

    Raises:
        ConfigError: It cannot be used.
    """
    location, options = _split(url, _SQS_OPTIONS)
    if "@" in location:
        raise ConfigError("it has a user; leave it out: boto3 finds the credentials (environment, profile, role)")
    if location.strip("/"):
        raise ConfigError(
            "it has a host; write sqs://?region=REGION, and &endpoint_url=http://HOST:PORT for another SQS"
        )
    region, endpoint = options.get("region"), options.get("endpoint_url")
    if region is not None and not re.fullmatch(r"[a-z0-9-]{1,40}", region):
        raise ConfigError("the option region is no name such as eu-west-1")
    if endpoint is not None and not re.fullmatch(r"https?://[^\s@]+", endpoint):
        raise ConfigError("the option endpoint_url is no URL such as http://127.0.0.1:4566")
    return SqsUrl(region, endpoint)


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator and scheme.lower() in BROKER_SCHEMES else ""


def _split(url: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    location, _, query = url.partition("://")[2].partition("?")
    if re.search(r"[#\s]", location) or ("@" in query and known is _AMQP_OPTIONS):
        raise ConfigError("special characters of a user or a password must be percent-encoded: %23 is #, %3F is ?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(f"the option {unknown[0][:40]!r} is unknown; there are {', '.join(known)}")
    return location, options


def _parse_location(location: str) -> Any:
    try:
        parts = urlsplit(f"amqp://{location}")
        host = parts.netloc.rpartition("@")[2]
        is_valid = parts.port != 0  # it is checked only here, and raises
    except ValueError:
        is_valid, host = False, ""
    if not is_valid or not _HOST.fullmatch(re.sub(r":\d*$", "", host)):
        raise ConfigError("it is no URL such as amqp://USER:PASSWORD@HOST:5672/VHOST, with special characters encoded")
    return parts


def _parse_heartbeat(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MAX_HEARTBEAT:
        raise ConfigError(f"the option heartbeat is no number of seconds from 1 to {_MAX_HEARTBEAT}")
    return int(text)


def _parse_tls(options: Mapping[str, str], parts: Any) -> dict[str, Any]:
    required = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if required not in _CERT_REQS:
        raise ConfigError(f"the option ssl_cert_reqs is none of {', '.join(_CERT_REQS)}")
    checks_name = _CERT_REQS[required] is not ssl.CERT_NONE and options.get("ssl_check_hostname", "").lower() != "false"
    files = {name: options[f"ssl_{name}"] for name in ("ca_certs", "certfile", "keyfile") if f"ssl_{name}" in options}
    # kombu takes the host's name where the key is there with None.
    name = {"server_hostname": parts.hostname or "localhost"} if checks_name else {}
    return {**files, **name, "cert_reqs": _CERT_REQS[required]}
