"""The log-in at AWS's stores with IAM: who logs in where, read and checked without a connection."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecs_queue.errors import ConfigError
from ecs_queue.server_url import ServerKind, ServerUrl

_LOGIN = re.compile(r"(elasticache|memorydb):([A-Za-z0-9-]{1,40})(?:@([A-Za-z][A-Za-z0-9-]{0,49}))?")
#: What stands before the name of a cache in the name of an endpoint.
_ENDPOINT_KINDS = ("master", "primary", "clustercfg", "replica", "reader")


@dataclass(frozen=True, slots=True)
class IamLogin:
    """Whose token is signed, and for which cache.

    Attributes:
        service: "elasticache" or "memorydb".
        user: The id of the user at the service.
        cache: The name of the replication group, serverless cache or cluster; "": the one in the host's name.
    """

    service: str
    user: str
    cache: str = ""

    def __str__(self) -> str:
        """Return it as it is written in a configuration."""
        return f"{self.service}:{self.user}{'@' if self.cache else ''}{self.cache}"


@dataclass(frozen=True, slots=True)
class IamTarget:
    """The cache that a token is for.

    Attributes:
        login: Who logs in.
        cache: The name of the cache, which is the host that is signed.
        is_serverless: Whether it is an ElastiCache Serverless cache.
    """

    login: IamLogin
    cache: str
    is_serverless: bool


def parse_iam_login(text: str) -> IamLogin:
    """Return what `elasticache:USER[@CACHE]` or `memorydb:USER[@CLUSTER]` says.

    Raises:
        ConfigError: It has another form.
    """
    found = _LOGIN.fullmatch(text)
    if not found:
        raise ConfigError(f"expected elasticache:USER@CACHE or memorydb:USER@CLUSTER, found {text[:80]!r}")
    return IamLogin(found[1], found[2], found[3] or "")


def find_iam_target(login: IamLogin, url: ServerUrl) -> IamTarget:
    """Return the cache that a login is for.

    Raises:
        ConfigError: The URL does not go with a log-in by IAM, or has no name of a cache.
    """
    if url.kind not in (ServerKind.SINGLE, ServerKind.CLUSTER) or not url.is_encrypted:
        raise ConfigError("a log-in with IAM needs TLS: begin the URL with rediss:// or rediss+cluster://")
    if {"username", "password"} & url.options.keys():
        raise ConfigError("a log-in with IAM takes the place of user and password: leave them out of the URL")
    host = url.addresses[0][0].lower()
    labels = host.split(".")
    name = labels[1] if labels[0] in _ENDPOINT_KINDS else labels[0]
    is_serverless = login.service == "elasticache" and ".serverless." in host
    if is_serverless:
        name = name.rpartition("-")[0]
    is_endpoint = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
    cache = login.cache or (name if is_endpoint else "")
    if not cache:
        raise ConfigError(f"the host is no endpoint of AWS: name the cache, {login.service}:{login.user}@CACHE")
    return IamTarget(login, cache.lower(), is_serverless)
