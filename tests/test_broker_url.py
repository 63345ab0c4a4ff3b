"""URLs of RabbitMQ and SQS as people write them."""

from __future__ import annotations

import ssl

import pytest

from ecs_queue.broker_url import AmqpUrl, SqsUrl, check_broker_url, parse_amqp_url, parse_sqs_url
from ecs_queue.errors import ConfigError

VERIFIED = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "h"}


@pytest.mark.parametrize(
    ("url", "location", "tls"),
    [
        ("amqp://", "amqp://", None),
        ("amqp://h", "amqp://h", None),
        ("AMQP://h", "amqp://h", None),
        ("pyamqp://guest@h//", "amqp://guest@h//", None),
        ("amqp://u:p%40ss@h:5672/jobs", "amqp://u:p%40ss@h:5672/jobs", None),
        ("amqp://[::1]:5672/%2F", "amqp://[::1]:5672/%2F", None),
        ("amqps://u:p@h/v", "amqp://u:p@h/v", VERIFIED),
        ("amqps://h?ssl_ca_certs=/ca.pem", "amqp://h", {**VERIFIED, "ca_certs": "/ca.pem"}),
        ("amqps://h?ssl_check_hostname=false", "amqp://h", {"cert_reqs": ssl.CERT_REQUIRED}),
        ("amqps://h?ssl_cert_reqs=none", "amqp://h", {"cert_reqs": ssl.CERT_NONE}),
        ("amqps://h?ssl_cert_reqs=CERT_REQUIRED", "amqp://h", VERIFIED),
    ],
)
def test_a_url_of_rabbitmq_is_read(url: str, location: str, tls: dict[str, object] | None) -> None:
    assert parse_amqp_url(url) == AmqpUrl(location, tls, heartbeat=10)
    assert "p%40ss" not in repr(parse_amqp_url(url))


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("sqs://", None, None),
        ("sqs:///", None, None),
        ("sqs://?region=eu-west-1", "eu-west-1", None),
        ("sqs://?region=eu-west-1&endpoint_url=http://127.0.0.1:4566", "eu-west-1", "http://127.0.0.1:4566"),
    ],
)
def test_a_url_of_sqs_is_read(url: str, region: str | None, endpoint: str | None) -> None:
    assert parse_sqs_url(url) == SqsUrl(region, endpoint)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://u:hunter2@h;amqp://g", "several servers"),
        ("amqp://u:hunter2@h1:5672,h2:5672/v", "several servers"),
        ("amqp://u:hunter2@h:port/v", "it is no URL such as amqp://"),
        ("amqp://u:hun#ter2@h", "percent-encoded"),
        ("amqp://u:hun?ter2@h", "percent-encoded"),
        ("amqp://u:hunter2@h?heartbeat=0", "heartbeat is no number of seconds from 1 to 300"),
        ("amqp://u:hunter2@h?heartbeat=" + "9" * 5000, "heartbeat is no number"),
        ("amqps://u:hunter2@h?ssl_cert_reqs=maybe", "ssl_cert_reqs is none of none, optional, required"),
        (
            "amqp://u:hunter2@h?failover_strategy=shuffle",
            "the option 'failover_strategy' is unknown; there are heartbeat",
        ),
        ("sqs://AKIA:hunter2@", "boto3 finds the credentials"),
        ("sqs://localhost:4566", "it has a host"),
        ("sqs://eu-west-1", "it has a host; write sqs://?region="),
        ("sqs://?region=Frankfurt!", "region is no name such as eu-west-1"),
        ("sqs://?endpoint_url=localhost", "endpoint_url is no URL"),
        ("sqs://?visibility_timeout=30", "the option 'visibility_timeout' is unknown; there are region, endpoint_url"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_in_words_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_broker_url(url)
    assert expected in str(raised.value)
    assert "hunter2" not in str(raised.value)
