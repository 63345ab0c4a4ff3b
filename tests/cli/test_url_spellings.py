"""Spellings of URLs of users of Celery, kombu, Heroku, redis-py and AWS: each works, or is refused by a sentence.

None ends as a bug, and none shows a password: in `config`, `submit`, `doctor` or a log.
"""

from __future__ import annotations

import io
import logging
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from ecs_queue.cli.ui.exit_status import EXIT_FAILURE, EXIT_USAGE
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer, find_free_port
from tests.cli.conftest import Invoke
from tests.replicated_servers import SentinelDeployment, ValkeyCluster
from tests.servers import require_redis_binary
from tests.system.secure_redis import CertificateAuthority

pytestmark = pytest.mark.server

_SECRET = "hunter2"
#: A password with everything that a URL gives a meaning to.
_HARD = f"{_SECRET}/?#@;, %:+&=[]"

#: HOST and TLS are a server's plain and encrypted address, CA its authority, SOCKET its socket, HARD the hard password,
#: NODES and NODE addresses of a cluster, SENTINELS and SENTINEL of Sentinels.
WORKS = [
    # redis-py and Celery
    "redis://:hunter2@HOST/0",
    "redis://:hunter2@HOST",
    "redis://:hunter2@HOST/",
    "redis://:hunter2@HOST//1",
    "redis://:hunter2@HOST/0/",
    "redis://default:hunter2@HOST/0",
    "redis://ann:HARD@HOST/2",
    "REDIS://:hunter2@HOST/0",
    "redis://HOST/0?password=hunter2",
    "redis://HOST?username=ann&password=HARD&db=1",
    "redis://:hunter2@HOST/0?db=3",
    "redis://:hunter2@HOST?socket_timeout=5&socket_connect_timeout=2.5&socket_keepalive=true",
    "redis://:hunter2@HOST/0?health_check_interval=25&retry_on_timeout=True&max_connections=20",
    "redis://:hunter2@HOST/0?client_name=etl&protocol=2",
    "redis://:hunter2@HOST/0?protocol=3&socket_timeout=30s",
    "redis://:hunter2@localhost:PORT/0",
    "  redis://:hunter2@HOST/0  ",
    "valkey://:hunter2@HOST/0",
    # TLS as Celery, redis-py, Heroku, Azure and Upstash have it
    "rediss://:hunter2@TLS/0?ssl_ca_certs=CA",
    "rediss://:hunter2@TLS/0?ssl_cert_reqs=none",
    "rediss://:hunter2@TLS/0?ssl_cert_reqs=CERT_NONE",
    "rediss://:hunter2@TLS/0?ssl_cert_reqs=required&ssl_ca_certs=CA",
    "rediss://:hunter2@TLS/0?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=CA&ssl_check_hostname=false",
    "rediss://:hunter2@TLS?ssl_cert_reqs=optional&ssl_ca_certs=CA&ssl_min_version=TLSv1.2",
    "rediss://:hunter2@TLS?ssl_cert_reqs=ssl.CERT_NONE",
    "redis://:hunter2@TLS/0?ssl=true&ssl_cert_reqs=none",
    "redis://:hunter2@TLS/0?tls=True&ssl_ca_certs=CA",
    "valkeys://ann:HARD@TLS/0?ssl_ca_certs=CA",
    # sockets
    "unix://SOCKET?db=1&password=hunter2",
    "unix://:hunter2@SOCKET",
    "redis+socket://:hunter2@SOCKET?virtual_host=2",
    # Sentinels: redis-py's list, Celery's, and that of redis-sentinel-url
    "sentinel://SENTINELS/0?service=mine",
    "sentinel://SENTINEL;sentinel://SENTINEL/0?master_name=mine",
    "sentinel://SENTINEL/1;sentinel://SENTINEL/1?master_name=mine",
    "redis+sentinel://SENTINELS/mine/0",
    # clusters
    "redis+cluster://NODES",
    "redis+cluster://NODE/0",
    "valkey+cluster://NODES?health_check_interval=10",
    "redis://NODE",
    "redis://NODE/0?protocol=2",
]

#: Read, and nothing answers at the address: 127.0.0.1:1 is that of every name here.
UNREACHABLE = [
    "redis://h:hunter2@ec2-1-2-3-4.compute-1.amazonaws.com:12345",
    "rediss://:hunter2@ec2-1-2-3-4.compute-1.amazonaws.com:12346?ssl_cert_reqs=none",
    "rediss://master.q.abc123.use1.cache.amazonaws.com:6379",
    "rediss://ann:hunter2@clustercfg.q.abc123.memorydb.eu-west-1.amazonaws.com:6379/0",
    "rediss://q-abc123.serverless.use1.cache.amazonaws.com:6379?ssl_cert_reqs=required",
    "rediss+cluster://:hunter2@q.abc123.clustercfg.use1.cache.amazonaws.com",
    "rediss://default:hunter2@redis-123.c1.us-east-1-2.ec2.redns.redis-cloud.com:17000",
    "redis://:hunter2@[::1]:1/0",
    "redis://hunter2@redis.internal",
    "redis://:hunter2@redis.internal:/0",
]

#: Refused, and a part of the sentence.
REFUSED = {
    "redis://": "names no host",
    "redis://:hunter2@/0": "names no host",
    "redis:/127.0.0.1:6379": "the scheme is none of redis, rediss",
    "127.0.0.1:6379/0": "the scheme is none of redis, rediss",
    "redis-cluster://HOST": "the scheme is none of redis, rediss",
    "rabbitmq://:hunter2@HOST": "a broker's may also be amqp, amqps, pyamqp, sqs",
    "redis+cluster://:hunter2@h1,:hunter2@h2": "stand once, before the first host",
    "redis+cluster://h1,:hunter2@h2": "stand once, before the first host",
    "sentinel://:hunter2@h1,:hunter2@h2/0?service=m": "stand once, before the first host",
    '"redis://:hunter2@HOST/0"': "leave the quotation marks out",
    "redis://:hunter2@HOST/name": "the number of a database",
    "redis://:hunter2@HOST:port/0": "the host is no name",
    "redis://:hunter2@127.0.0.1:99999/0": "the port is no number",
    "redis://:hunter2@127.0.0.1:0": "the port is no number",
    "redis://:hunter2#x@HOST/0": "percent-encoded",
    "redis://:hunter2/x@HOST/0": "percent-encoded",
    "redis://:hunter2?x@HOST/0": "percent-encoded",
    "redis://:hun ter2@HOST/0": "percent-encoded",
    "redis://hunter2+9r/A=@HOST/14": "percent-encoded",
    "redis://:Ro3x<16%3xHO54l]1;ilx$Ae6+lR@%+0TQ6c~19XDS/hunter2@HOST/0": "percent-encoded",
    "redis://:hunter2@::1:6379/0": "IPv6",
    "redis://:hunter2@h1,h2:6380/0": "write redis+cluster://HOST,HOST",
    "redis://:hunter2@h1:6379;redis://:hunter2@h2:6379": "write redis+cluster://HOST,HOST",
    "sentinel://:hunter2@h1:26379;sentinel://h2:26379/0": "end it with ?service=NAME",
    "sentinel://:hunter2@h1;sentinel://:hunter3@h2/0?master_name=m": "different users, passwords",
    "redis+cluster://:hunter2@h1,h2/3": "a cluster has the database 0 only",
    "redis://:hunter2@HOST/0?ssl_cert_reqs=none": "begin the URL with rediss://",
    "rediss://:hunter2@TLS/0?ssl_cert_reqs=maybe": "'ssl_cert_reqs' after the ? has a wrong value",
    "rediss://:hunter2@TLS/0?ssl=false": "switches TLS off",
    "redis://:hunter2@HOST/0?visibility_timeout=3600": "set visibility_timeout in [ecs_queue]",
    "redis://:hunter2@HOST/0?socket_timout=5": "did you mean 'socket_timeout'?",
    "redis://:hunter2@HOST/0?decode_responses=true": "'decode_responses' after the ? is unknown",
    "redis://:hunter2@HOST/0?credential_provider=a.B": "set broker_iam or ledger_iam",
    "redis://:hunter2@HOST/0?db=1&db=2": "'db' after the ? is given twice",
    "redis://:hunter2@HOST/0?db=": "'db' after the ? has no value",
    "unix://hunter2@run/redis.sock": "three slashes",
    "http://:hunter2@HOST": "the scheme is none of redis, rediss",
}


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """Placeholder -> its value. The server has users with the two passwords."""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is too long for a socket's name
        authority = CertificateAuthority(Path(folder, "ca"))
        certificate, key = authority.issue("server")
        tls_port = find_free_port()
        settings = [f"tls-port {tls_port}", f"tls-cert-file {certificate}", f"tls-key-file {key}"]
        settings += [f"tls-ca-cert-file {authority.ca}", "tls-auth-clients no", f"unixsocket {folder}/s"]
        with RedisServer(binary=require_redis_binary(), password=_SECRET, settings=settings) as server:
            admin: Any = redis.Redis.from_url(server.url)
            admin.acl_setuser("ann", enabled=True, passwords=[f"+{_HARD}"], keys="*", commands=["+@all"])
            admin.close()
            yield {
                "HOST": f"127.0.0.1:{server.port}",
                "PORT": str(server.port),
                "TLS": f"127.0.0.1:{tls_port}",
                "CA": quote(str(authority.ca), safe=""),
                "SOCKET": f"{folder}/s",
                "HARD": quote(_HARD, safe=""),
            }


@pytest.fixture(autouse=True)
def _resolve_names_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers at any name but localhost."""
    resolve = socket.getaddrinfo

    def resolve_here(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        is_here = host in ("127.0.0.1", "localhost", "::1", None)
        return resolve(host if is_here else "127.0.0.1", port if is_here else 1, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_here)


class Said:
    """What a command has printed and logged; the password is nowhere in it."""

    def __init__(self, invoke: Invoke, url: str, *arguments: str) -> None:
        log = io.StringIO()
        handler = logging.StreamHandler(log)
        logging.getLogger().addHandler(handler)
        environ = {**local_environment("http://127.0.0.1:1", url), "AIRFLOW__ECS_QUEUE__SOCKET_TIMEOUT_SECONDS": "3"}
        try:
            done = invoke(*arguments, "--log-level", "debug", env=environ)
        finally:
            logging.getLogger().removeHandler(handler)
        self.status = done.exit_code
        self.text = done.output + log.getvalue()
        assert _SECRET not in self.text, self.text
        assert "Traceback" not in self.text, self.text


def _fill(spelling: str, places: Mapping[str, str]) -> str:
    return re.sub(r"[A-Z]+\b", lambda found: places.get(found[0], found[0]), spelling)


def test_there_are_sixty_of_them() -> None:
    assert len({*WORKS, *UNREACHABLE, *REFUSED}) >= 60


@pytest.mark.parametrize("spelling", WORKS)
def test_a_spelling_that_works(
    invoke: Invoke,
    spelling: str,
    places: dict[str, str],
    valkey_cluster: ValkeyCluster,
    watched_servers: SentinelDeployment,
) -> None:
    nodes = [f"127.0.0.1:{node.port}" for node in valkey_cluster.nodes]
    sentinel = f"127.0.0.1:{watched_servers.sentinels[0].port}"
    places = places | {"NODES": ",".join(nodes), "NODE": nodes[0], "SENTINELS": sentinel, "SENTINEL": sentinel}
    url = _fill(spelling, places)
    assert Said(invoke, url, "config").status == 0
    submitted = Said(invoke, url, "submit", "--", "true")
    assert submitted.status == 0, submitted.text
    if WORKS.index(spelling) % 6 == 0:  # it takes its time with AWS, which is not here
        examined = Said(invoke, url, "doctor", "--json")
        assert '"check": "server.reachable", "subject": "ledger", "severity": "ok"' in examined.text, examined.text


def test_a_server_of_another_kind_is_refused_when_it_is_reached(
    invoke: Invoke, valkey_cluster: ValkeyCluster, watched_servers: SentinelDeployment
) -> None:
    for url, sentence in (
        (watched_servers.sentinels[0].url, "is a Sentinel: write sentinel://127.0.0.1:"),
        (valkey_cluster.nodes[0].url.replace("/0", "/3"), "is in cluster mode, which has the database 0 only"),
    ):
        for command, status in (
            (("submit", "--", "true"), EXIT_USAGE),
            (("worker",), EXIT_USAGE),
            (("doctor",), EXIT_FAILURE),
        ):
            said = Said(invoke, url, *command)
            assert said.status == status, said.text
            assert sentence in said.text


@pytest.mark.parametrize("spelling", UNREACHABLE)
def test_a_spelling_of_a_server_that_does_not_answer(invoke: Invoke, spelling: str) -> None:
    assert Said(invoke, spelling, "config").status == 0
    submitted = Said(invoke, spelling, "submit", "--", "true")
    assert submitted.status == EXIT_USAGE, submitted.text
    assert "Connection refused; check broker_url and the server" in submitted.text
    if UNREACHABLE.index(spelling) % 4 == 0:
        assert Said(invoke, spelling, "doctor").status == EXIT_FAILURE


@pytest.mark.parametrize("spelling", REFUSED)
def test_a_spelling_that_is_refused(invoke: Invoke, spelling: str, places: dict[str, str]) -> None:
    url = _fill(spelling, places)
    for arguments in (("config",), ("submit", "--", "true"), ("doctor",), ("worker",)):
        said = Said(invoke, url, *arguments)
        assert said.status == EXIT_USAGE, said.text
        assert REFUSED[spelling] in said.text
        assert "broker_url" in said.text
