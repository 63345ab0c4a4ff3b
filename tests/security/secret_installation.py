"""An installation whose keys, passwords and payloads are canaries, configured in each supported way."""

from __future__ import annotations

import base64
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from click.testing import CliRunner, Result

from ecs_queue.cli.main import cli
from ecs_queue.local.ecs import local_environment
from ecs_queue.local.redis_server import RedisServer
from tests.security.fake_secrets import FakeSecrets

PREFIX = "AIRFLOW__ECS_QUEUE__"
NAMESPACE = "ecs-queue"
PASSWORD = "c4n4ryserverpassword"
SIGNING_SECRET = "c4n4ry-signing-" + "k" * 32
ENCRYPTION_KEY = base64.urlsafe_b64encode(b"c4n4ry-encryption-key-of-32bytes").decode()
AWS_SECRETS = ("c4n4ry-aws-secret-access-key", "c4n4ry-aws-session-token")
#: No output, file, key of the server or list of processes has one of them.
KEYS = (PASSWORD, SIGNING_SECRET, ENCRYPTION_KEY, *AWS_SECRETS)
#: The command and the environment of requests: only where the docs say.
ARGUMENT, VALUE = "c4n4ry-argument", "c4n4ry-value"
PAYLOADS = (ARGUMENT, VALUE)
EXECUTOR_CONFIG = {"environment": [{"name": "GREETING", "value": VALUE}]}

#: The ways in which a secret may be configured.
WAYS = ("variables", "files", "commands", "ini file", "ini file with files", "references to AWS")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")


@dataclass
class SecretInstallation:
    """A server with a password, and where its configuration stands."""

    server: RedisServer
    admin: Any
    directory: Path
    endpoint_url: str
    encrypts: bool
    secrets: FakeSecrets

    def environ(self, way: str, url: str | None = None) -> dict[str, str]:
        """Return the environment of a process that is configured in this way; `url` in place of the server's."""
        base = local_environment(self.endpoint_url, "")
        base |= dict(zip(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), AWS_SECRETS, strict=True))
        base[f"{PREFIX}BROKER_URL"] = ""
        values = {"broker_url": url or self.server.url, "signing_keys": f"k1:{SIGNING_SECRET}"}
        if self.encrypts:
            values["encryption_keys"] = ENCRYPTION_KEY
        return {name: value for name, value in base.items() if value} | self._configure(way, values)

    def _configure(self, way: str, values: Mapping[str, str]) -> dict[str, str]:
        if way == "variables":
            return {f"{PREFIX}{name.upper()}": value for name, value in values.items()}
        folder = self.directory / f"{way.replace(' ', '-')}-{len(list(self.directory.iterdir()))}"
        folder.mkdir(0o700)
        if way == "references to AWS":
            paths_in_aws = {name: f"/{folder.name}/{name}" for name in values}
            self.secrets.values |= {paths_in_aws[name]: value for name, value in values.items()}
            services = dict.fromkeys(values, "secretsmanager") | {"broker_url": "ssm"}
            references = {f"{PREFIX}{name.upper()}": f"{services[name]}:{paths_in_aws[name]}" for name in values}
            return references | self.secrets.environ
        paths = {name: _write_private(folder / name, value) for name, value in values.items()}
        if way == "files":
            return {f"{PREFIX}{name.upper()}_FILE": str(path) for name, path in paths.items()}
        if way == "commands":
            read = f"{sys.executable} -c 'print(open(\"{{}}\").read())'"
            return {f"{PREFIX}{name.upper()}_CMD": read.format(path) for name, path in paths.items()}
        lines = [f"{name} = {value}" for name, value in values.items()]
        if way == "ini file with files":
            lines = [f"{name}_file = {path}" for name, path in paths.items()]
        ini = _write_private(folder / "ecs_queue.cfg", "\n".join(["[ecs_queue]", *lines, ""]))
        return {"ECS_QUEUE_CONFIG": str(ini)}

    def invoke(self, way: str, *words: str, url: str | None = None) -> Result:
        """Run a command in this process, with its log at the level debug."""
        return CliRunner().invoke(cli, [*words, "--log-level", "debug"], env=self.environ(way, url))

    def stored(self) -> Iterator[tuple[str, bytes]]:
        """Yield each key of the server with what it holds: as it is, without base64, and inflated."""
        for key in self.admin.scan_iter(count=1000):
            name = key.decode(errors="replace")
            for value in (key, *_values(self.admin, key)):
                yield from ((name, text) for text in _decoded(value))


def _write_private(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def _values(admin: Any, key: bytes) -> Iterator[bytes]:
    kind = admin.type(key)
    if kind == b"string":
        yield admin.get(key)
    elif kind == b"hash":
        for pair in admin.hgetall(key).items():
            yield from pair
    elif kind == b"list":
        yield from admin.lrange(key, 0, -1)
    elif kind == b"set":
        yield from admin.smembers(key)
    elif kind == b"zset":
        yield from admin.zrange(key, 0, -1)
    elif kind == b"stream":
        for _, fields in admin.xrange(key):
            yield from fields.values()
    else:
        raise AssertionError(f"{key!r} has the unknown type {kind!r}")


def _decoded(value: bytes, depth: int = 3) -> Iterator[bytes]:
    """The value, and what is inside it when it is, or has, base64 or deflated bytes."""
    yield value
    if not depth:
        return
    for text in _BASE64.findall(value):
        whole = text.rstrip(b"=")[: len(text.rstrip(b"=")) // 4 * 4]
        yield from _decoded(base64.b64decode(whole), depth - 1)
    try:
        yield from _decoded(zlib.decompress(value), depth - 1)
    except zlib.error:
        return


def open_admin(server: RedisServer) -> Any:
    """Return a connection of the server's administrator."""
    return redis.Redis.from_url(server.url)


def found_in(text: str | bytes, canaries: tuple[str, ...]) -> list[str]:
    """Return the canaries that stand in a text."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return [canary for canary in canaries if canary.encode() in data]
