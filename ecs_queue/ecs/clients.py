"""boto3 clients for the accounts, Regions and endpoints that requests are launched to.

No client retries: the launch protocol and the rate limits decide whether and when a call is made again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self
from urllib.parse import urlsplit

import boto3
import botocore
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.loaders import create_loader

from ecs_queue.ecs.fast_parser import register_fast_parser
from ecs_queue.error_text import error_text, typed_error_text
from ecs_queue.errors import ConfigError, PermanentError
from ecs_queue.payload_repr import PayloadRepr
from ecs_queue.version import package_version

if TYPE_CHECKING:
    from ecs_queue.ecs.curl_client import CurlHttpClient

HttpClient = Literal["botocore", "curl"]

#: Shown in CloudTrail as the session of every assumed role.
ROLE_SESSION_NAME = "ecs-queue"

_REGION_HELP = (
    "No AWS Region is known: set region_name in [aws_ecs_executor] or "
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME, or AWS_REGION, AWS_DEFAULT_REGION, or a region in ~/.aws/config."
)


class ProfileLike(Protocol):
    """The part of a queue's profile that names its ECS; empty or None stands for "not set"."""

    @property
    def region_name(self) -> str | None: ...
    @property
    def endpoint_url(self) -> str | None: ...
    @property
    def role_arn(self) -> str | None: ...
    @property
    def cluster(self) -> str | None: ...
    @property
    def conn_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where a launch goes, frozen in its record: a task is described and stopped where it was started.

    Attributes:
        endpoint_url: None: boto3 resolves it (AWS_ENDPOINT_URL_ECS, AWS_ENDPOINT_URL, the Region's own).
        role_arn: Assumed for every call.
        conn_id: Names an Airflow connection; without Airflow it has no effect.
    """

    region: str
    endpoint_url: str | None
    role_arn: str | None
    cluster: str
    conn_id: str | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for a password in the endpoint's URL: a target is logged and stored unencrypted."""
        if self.endpoint_url and "@" in urlsplit(self.endpoint_url).netloc:
            raise ConfigError("endpoint_url must not hold a user name or password: remove what stands before the @.")

    @lru_cache(maxsize=1024)  # noqa: B019 - equal ones share it: there are a few
    def encode(self) -> str:
        """Return JSON with sorted keys and without unset ones: equal targets give equal strings."""
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(known, sort_keys=True, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the target that `encode` wrote; raises PermanentError for anything else."""
        try:
            known = json.loads(text)
            return cls(**{"endpoint_url": None, "role_arn": None, **known})
        except (ValueError, TypeError) as error:
            raise PermanentError(
                f"The target in the record cannot be read ({error_text(error)}): was it written by a newer version?"
            ) from error


@dataclass(frozen=True, slots=True, repr=False)
class CredentialSource(PayloadRepr):
    """Where credentials come from: a boto3 session, and what an Airflow connection adds to it."""

    session: Any
    endpoint_url: str | None = None
    verify: bool | str | None = None


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Time-outs of every client in seconds. Give the pool as many connections as there are calling threads.

    `http_client` is what sends the calls to ECS: "botocore", or "curl" (see `ecs_queue.ecs.curl_client`).
    """

    connect_timeout: float = 5.0
    read_timeout: float = 15.0
    max_pool_connections: int = 32
    http_client: HttpClient = "botocore"


def open_credential_source(conn_id: str | None) -> CredentialSource:
    """Return the Airflow connection `conn_id` where Airflow's amazon provider is installed, else boto3's own chain.

    The connection's credentials, role, Region, endpoint_url and verify are used. Airflow is imported only when there is
    a `conn_id`: that alone takes seconds.
    """
    if not conn_id:
        return CredentialSource(boto3.Session())
    try:
        with _unchanged_logging():
            hooks = import_module("airflow.providers.amazon.aws.hooks.base_aws")
    except ImportError:  # no Airflow, or no amazon provider
        return CredentialSource(boto3.Session())
    hook = hooks.AwsGenericHook(aws_conn_id=conn_id, client_type="ecs")
    return CredentialSource(hook.get_session(), hook.conn_config.get_service_endpoint_url("ecs"), hook.verify)


@contextmanager
def _unchanged_logging() -> Iterator[None]:
    """Undo what the first import of Airflow does to the program's logging: it replaces the root logger's handlers.

    Where Airflow is imported already, as in its own programs, nothing is changed.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class EcsClients:
    """boto3 ECS clients, one a target, built when first used. Thread-safe.

    Building takes about 0.1 s and no network, except where an Airflow connection or boto3's chain (instance
    metadata) needs it. A client re-assumes its role by itself before the credentials expire.

    Raises:
        ConfigError: the package of the HTTP client is not installed, or its libcurl cannot be used.
    """

    def __init__(
        self,
        options: ClientOptions | None = None,
        *,
        open_source: Callable[[str | None], CredentialSource] = open_credential_source,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options or ClientOptions()
        self._curl = _open_curl() if self._options.http_client == "curl" else None
        self._open_source_for = open_source
        self._environ = os.environ if environ is None else environ
        self._lock = threading.RLock()
        # Of the sessions that assume a role: the service models take megabytes and a tenth of a second to load.
        self._model_loader = create_loader()
        self._sources: dict[str | None, CredentialSource] = {}
        self._clients: dict[Target, Any] = {}
        self._sent_by_curl: set[Target] = set()

    def client(self, target: Target) -> Any:
        """Return the client for this target.

        Raises:
            NoCredentialsError: botocore's; there are no credentials. Nothing is cached then.
            ConfigError: no client can be built from the settings.
        """
        client = self._clients.get(target)
        if client is not None:
            return client
        with self._lock:
            client = self._clients.get(target)
            if client is None:
                client = self._clients[target] = self._build_ecs_client(target)
            return client

    def http_client(self, target: Target) -> HttpClient:
        """Return what sends the calls of this target's client; raises as `client` does.

        With `http_client = curl` it is botocore where a proxy or TLS without verification is configured.
        """
        self.client(target)
        return "curl" if target in self._sent_by_curl else "botocore"

    def invalidate(self, target: Target, client: Any) -> None:
        """Drop this client and its credentials, so that the next use reads the credentials again.

        Does nothing when another thread has replaced it already. Calls that are under way on it continue.
        """
        with self._lock:
            if self._clients.get(target) is client:
                del self._clients[target]
                self._sources.pop(target.conn_id, None)

    def target_for(self, profile: ProfileLike) -> Target:
        """Return the target of a queue's profile, without a call to AWS.

        Its Region is the first that is set: the profile's, the Airflow connection's, AWS_DEFAULT_REGION or
        ~/.aws/config, AWS_REGION.

        Raises:
            ConfigError: there is no cluster or no Region.
        """
        if not profile.cluster:
            raise ConfigError("No cluster is set: set it in [aws_ecs_executor] or in the queue's own section.")
        source = self._get_source(profile.conn_id or None)
        region = profile.region_name or source.session.region_name or self._environ.get("AWS_REGION")
        if not region:
            raise ConfigError(_REGION_HELP)
        return Target(
            region=region,
            endpoint_url=profile.endpoint_url or source.endpoint_url or None,
            role_arn=profile.role_arn or None,
            cluster=profile.cluster,
            conn_id=profile.conn_id or None,
        )

    def _get_source(self, conn_id: str | None) -> CredentialSource:
        with self._lock:
            if conn_id not in self._sources:
                try:
                    self._sources[conn_id] = self._open_source_for(conn_id)
                except Exception as error:  # Airflow and its secret backends raise anything
                    raise ConfigError(
                        f"The AWS connection {conn_id or '(default)'} cannot be opened "
                        f"({typed_error_text(error)}): check conn_id, AWS_PROFILE and the AWS config files."
                    ) from error
            return self._sources[conn_id]

    def client_for_service(
        self, target: Target, name: str, endpoint_url: str | None = None, region: str | None = None
    ) -> Any:
        """Return a client of any AWS service with the target's credentials and Region; raises as `client` does.

        For "ecs" it is `client(target)`, else a new one.
        """
        if name == "ecs":
            return self.client(target)
        with self._lock:  # boto3's sessions are not made for several threads
            session, verify = self._session(target)
            where = {"region_name": region or target.region, "endpoint_url": endpoint_url}
            return session.client(name, verify=verify, config=self._config(attempts=1), **where)

    def _session(self, target: Target) -> tuple[Any, bool | str | None]:
        """Return boto3's session with the target's credentials, and whether TLS is verified."""
        source = self._get_source(target.conn_id)
        session = source.session
        if target.role_arn:
            session = self._assume_role_session(session, target.role_arn, target.region)
        elif session.get_credentials() is None:
            # A client built without them would never look for them again.
            self._sources.pop(target.conn_id, None)
            raise NoCredentialsError
        return session, source.verify

    def _build_ecs_client(self, target: Target) -> Any:
        session, verify = self._session(target)
        try:
            client = session.client(
                "ecs",
                region_name=target.region,
                endpoint_url=target.endpoint_url,
                verify=verify,
                config=self._config(attempts=1),
            )
        except (ValueError, BotoCoreError) as error:
            raise ConfigError(f"No ECS client can be built for {target}: {error_text(error)}") from error
        register_fast_parser(client)
        self._sent_by_curl.discard(target)
        if self._curl is not None and self._curl.attach(client, verify, session.profile_name):
            self._sent_by_curl.add(target)
        return client

    def _config(self, attempts: int) -> Config:
        return Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=self._options.connect_timeout,
            read_timeout=self._options.read_timeout,
            max_pool_connections=self._options.max_pool_connections,
            tcp_keepalive=True,
            # Else botocore builds its own for every call: a tenth of the call's processor time.
            user_agent=f"Boto3/{boto3.__version__} Botocore/{botocore.__version__} ecs-queue/{package_version()}",
            # The gateway checks RunTask's arguments against the same model, in a tenth of the time.
            parameter_validation=False,
        )

    def _assume_role_session(self, session: Any, role_arn: str, region: str) -> Any:
        """Return a session that assumes the role when first used, and again before its credentials expire."""
        create = partial(session.client, region_name=region, config=self._config(attempts=2))
        assumed = botocore.session.Session()
        assumed.register_component("data_loader", self._model_loader)
        provider = _AssumedRole(session, create, role_arn)
        assumed.register_component("credential_provider", CredentialResolver([provider]))
        return boto3.Session(botocore_session=assumed)


def _open_curl() -> CurlHttpClient:
    try:
        from ecs_queue.ecs.curl_client import CurlHttpClient
    except ImportError:
        raise ConfigError(
            "http_client: expected the package pycurl to be installed, found that it is not; "
            "pip install 'ecs-queue[curl]', or set http_client = botocore"
        ) from None
    return CurlHttpClient()


class _AssumedRole(CredentialProvider):  # type: ignore[misc] # botocore has no types
    """A source of credentials for botocore: a role that `session` assumes. `create` makes a client of STS."""

    METHOD = "assume-role"

    def __init__(self, session: Any, create: Callable[..., Any], role_arn: str) -> None:
        super().__init__()
        self._source = session
        self._create = create
        self._role_arn = role_arn

    def load(self) -> DeferredRefreshableCredentials:
        """Return credentials that are fetched when first used, and again before they expire."""
        return DeferredRefreshableCredentials(refresh_using=self.fetch, method=self.METHOD)

    def fetch(self) -> Any:
        """Return the credentials of a new session of the role. NoCredentialsError without ones to assume it with."""
        credentials = self._source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        extra = {"RoleSessionName": ROLE_SESSION_NAME}
        fetcher = AssumeRoleCredentialFetcher(self._create, credentials, self._role_arn, extra_args=extra)
        return fetcher.fetch_credentials()
