"""Log-ins with IAM: a token of AWS's public signer in place of a password, a new one for each connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import redis
import redis.exceptions

from ecs_queue.error_text import error_text
from ecs_queue.server_url.iam import IamTarget

#: How long AWS accepts a token. Seconds.
TOKEN_SECONDS = 900
#: AWS ends a connection 12 hours after its log-in; it is made anew before. Seconds.
MAX_CONNECTION_SECONDS = 11 * 3600.0


class IamCredentials(redis.CredentialProvider):
    """Gives each new connection a token. Thread-safe.

    Args:
        target: Who logs in where.
        make_signer: Returns what signs a token; None: boto3's own credentials and Region do, which it looks for with
            the first connection.
    """

    def __init__(self, target: IamTarget, make_signer: Callable[[], Callable[[], str]] | None = None) -> None:
        self._target = target
        self._make_signer = make_signer or (lambda: open_signer(target))
        self._lock = threading.Lock()
        self._sign: Callable[[], str] | None = None

    def get_credentials(self) -> tuple[str, str]:
        """Return the user and a token.

        Raises:
            redis.exceptions.AuthenticationError: There are no credentials of AWS, or no Region.
        """
        try:
            with self._lock:  # of boto3's sessions only one thread may make one at a time
                self._sign = self._sign or self._make_signer()
                return self._target.login.user, self._sign()
        except Exception as error:  # botocore's types and those of its providers of credentials
            text = f"no token of IAM could be signed: {error_text(error)}"
            raise redis.exceptions.AuthenticationError(text) from error


def open_signer(target: IamTarget, session: Any = None) -> Callable[[], str]:
    """Return a function that signs tokens with the credentials that boto3 finds, which it renews by itself.

    Args:
        target: Who logs in where.
        session: A session of boto3; None makes one.

    Raises:
        redis.exceptions.AuthenticationError: There is no Region or there are no credentials.
    """
    import boto3  # takes a while, and few log in with IAM
    from botocore.model import ServiceId
    from botocore.signers import RequestSigner

    session = session or boto3.Session()
    credentials = session.get_credentials()
    if not session.region_name:
        raise redis.exceptions.AuthenticationError("AWS's Region is not known; set AWS_REGION")
    if credentials is None:
        raise redis.exceptions.AuthenticationError("boto3 finds no credentials of AWS")
    login = target.login
    signer = RequestSigner(
        ServiceId(login.service), session.region_name, login.service, "v4", credentials, session.events
    )
    query = {"Action": "connect", "User": login.user}
    if target.is_serverless:
        query["ResourceType"] = "ServerlessCache"
    request = {"method": "GET", "url": f"https://{target.cache}/?{urlencode(query)}", "body": {}, "headers": {}}

    def sign() -> str:
        signed: str = signer.generate_presigned_url(
            {**request, "context": {}}, "connect", expires_in=TOKEN_SECONDS, region_name=session.region_name
        )
        return signed.removeprefix("https://")

    return sign
