"""Log-ins with IAM: the token, checked by a second signer, and a real server whose password changes as tokens do."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial, reduce
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import boto3
import pytest
import redis
import redis.exceptions

from ecs_queue import redis_connection
from ecs_queue.errors import ConfigError
from ecs_queue.local.redis_server import RedisServer, find_free_port
from ecs_queue.redis_connection import connect
from ecs_queue.redis_connection import iam as module
from ecs_queue.redis_connection.iam import IamCredentials, open_signer
from ecs_queue.server_url import parse_server_url
from ecs_queue.server_url.iam import IamLogin, find_iam_target, parse_iam_login
from tests.servers import require_redis_binary
from tests.system.secure_redis import CertificateAuthority

_KEY, _SECRET, _SESSION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/token=="
_EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def _target(login: str, url: str) -> Any:
    return find_iam_target(parse_iam_login(login), parse_server_url(url))


@pytest.mark.parametrize(
    ("login", "url", "cache", "is_serverless"),
    [
        ("elasticache:ann", "rediss://master.my-queue.abc123.use1.cache.amazonaws.com:6379", "my-queue", False),
        ("elasticache:ann", "rediss://clustercfg.my-queue.abc123.use1.cache.amazonaws.com", "my-queue", False),
        ("elasticache:ann", "rediss://my-queue.abc123.clustercfg.use1.cache.amazonaws.com", "my-queue", False),
        ("elasticache:ann", "rediss://my-queue-abc123.serverless.use1.cache.amazonaws.com", "my-queue", True),
        ("elasticache:ann@Other", "rediss+cluster://clustercfg.q.abc.cnn1.cache.amazonaws.com.cn", "other", False),
        ("elasticache:ann@my-queue", "rediss://queue.example.internal", "my-queue", False),
        ("memorydb:ann@my-queue", "rediss://clustercfg.x.memorydb.eu-west-1.amazonaws.com", "my-queue", False),
    ],
)
def test_the_name_of_the_cache_is_that_of_the_login_or_of_the_endpoint(
    login: str, url: str, cache: str, is_serverless: bool
) -> None:
    target = _target(login, url)
    assert (target.cache, target.is_serverless) == (cache, is_serverless)
    assert str(target.login) == login


@pytest.mark.parametrize(
    ("login", "url", "words"),
    [
        ("elasticache:ann@c", "redis://h", "needs TLS"),
        ("elasticache:ann@c", "sentinel://h/0?service=s", "needs TLS"),
        ("elasticache:ann@c", "rediss://:hunter2@h", "leave them out"),
        ("elasticache:ann", "rediss://queue.example.internal", "name the cache, elasticache:ann@CACHE"),
        ("ann", "rediss://h", "expected elasticache:USER@CACHE"),
        ("rds:ann@c", "rediss://h", "expected elasticache:USER@CACHE"),
    ],
)
def test_a_login_that_does_not_go_with_its_url_is_a_sentence(login: str, url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        _target(login, url)
    assert "hunter2" not in str(caught.value)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _expected_signature(cache: str, query: dict[str, str], service: str) -> str:
    """AWS's Signature Version 4 of a presigned GET, by its specification."""
    when, scope = query["X-Amz-Date"], query["X-Amz-Credential"].partition("/")[2]
    unsigned = {name: value for name, value in sorted(query.items()) if name != "X-Amz-Signature"}
    canonical = "\n".join(
        ("GET", "/", urlencode(unsigned, quote_via=quote, safe="-_.~"), f"host:{cache}", "", "host", _EMPTY_HASH)
    )
    to_sign = "\n".join(["AWS4-HMAC-SHA256", when, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = reduce(_hmac, [when[:8], "eu-west-1", service, "aws4_request"], f"AWS4{_SECRET}".encode())
    return _hmac(key, to_sign).hex()


@pytest.mark.parametrize(
    ("login", "url", "extra"),
    [
        ("elasticache:ann@q", "rediss://h", {}),
        ("memorydb:ann@q", "rediss://h", {}),
        ("elasticache:ann", "rediss://q-abc.serverless.use1.cache.amazonaws.com", {"ResourceType": "ServerlessCache"}),
    ],
)
def test_a_token_is_a_signed_request_to_connect_as_the_user(login: str, url: str, extra: dict[str, str]) -> None:
    session = boto3.Session(_KEY, _SECRET, _SESSION, region_name="eu-west-1")
    target = _target(login, url)
    token = open_signer(target, session)()
    host, _, text = token.partition("/?")
    query = dict(parse_qsl(text))
    assert host == "q"
    assert not urlsplit(token).scheme
    assert query.items() >= {"Action": "connect", "User": "ann", "X-Amz-Expires": "900", **extra}.items()
    assert query["X-Amz-Security-Token"] == _SESSION
    assert query["X-Amz-Signature"] == _expected_signature("q", query, target.login.service)


def test_without_credentials_or_region_the_outage_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    target = _target("elasticache:ann@q", "rediss://h")
    for session, words in ((boto3.Session(region_name="eu-west-1"), "no credentials"), (boto3.Session(), "AWS_REGION")):
        monkeypatch.setattr(session, "get_credentials", lambda: None)
        provider = IamCredentials(target, partial(open_signer, target, session))
        with pytest.raises(redis.exceptions.AuthenticationError, match=words):
            provider.get_credentials()


class TokenServer:
    """A server with TLS whose user `ann` has another password after each token; earlier ones are refused."""

    def __init__(self, server: RedisServer, tls_port: int, authority: CertificateAuthority) -> None:
        self.url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={authority.ca}"
        self.admin: Any = redis.Redis(port=server.port)
        self.tokens = 0
        self._lock = threading.Lock()

    def sign(self) -> str:
        """Make a token, as AWS would accept it."""
        with self._lock:
            self.tokens += 1
            token = f"q/?Action=connect&User=ann&X-Amz-Signature={self.tokens}"
            self.admin.acl_setuser(
                "ann", enabled=True, reset=True, passwords=[f"+{token}"], keys="*", commands=["+@all"]
            )
            return token


@pytest.fixture
def token_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    authority = CertificateAuthority(tmp_path / "ca")
    certificate, key = authority.issue("server")
    port = find_free_port()
    settings = [f"tls-port {port}", f"tls-cert-file {certificate}", f"tls-key-file {key}"]
    settings += [f"tls-ca-cert-file {authority.ca}", "tls-auth-clients no", "user default on nopass ~* &* +@all"]
    with RedisServer(binary=require_redis_binary(), settings=settings) as server:
        made = TokenServer(server, port, authority)
        monkeypatch.setattr(module, "open_signer", lambda target: made.sign)
        yield made
        made.admin.close()


@pytest.mark.server
def test_each_connection_logs_in_with_a_token_of_its_own(token_server: TokenServer) -> None:
    with _open(token_server) as client:
        assert client.acl_whoami() == "ann"
        with client.pipeline() as pipe:  # it holds a second connection
            pipe.watch("a")
            assert client.acl_whoami() == "ann"
        assert token_server.tokens == 2
        token_server.admin.client_kill_filter(user="ann")  # as AWS does after 12 hours
        assert client.acl_whoami() == "ann"
        assert token_server.tokens == 3


@pytest.mark.server
def test_a_connection_is_made_anew_before_aws_ends_it(
    token_server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _open(token_server) as client:
        assert client.client_id() == client.client_id()
    assert 0 < module.MAX_CONNECTION_SECONDS < 12 * 3600
    monkeypatch.setattr(redis_connection, "MAX_CONNECTION_SECONDS", -1.0)
    with _open(token_server) as client:
        assert client.client_id() != client.client_id()
    assert token_server.tokens == 3


def _open(server: TokenServer) -> Any:
    return connect(server.url, socket_timeout=5.0, max_connections=4, iam=IamLogin("elasticache", "ann", "q"))


def test_boto3_is_imported_only_when_a_token_is_signed() -> None:
    program = (
        "import sys; from ecs_queue.redis_connection import connect; from ecs_queue.server_url.iam import IamLogin; "
        "connect('rediss://h', socket_timeout=1, max_connections=1, iam=IamLogin('memorydb', 'ann', 'q')); "
        "sys.exit('botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
