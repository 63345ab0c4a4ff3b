"""Sends the calls of an ECS client with libcurl. botocore builds, signs and parses them.

botocore's own HTTP session sends with Python's http.client: every system call releases the interpreter lock, and with
many threads another one has it afterwards. libcurl sends a request and waits for its answer in one call without the
lock.

One call may reach ECS twice: where a connection that was used before breaks before the first byte of an answer,
libcurl sends the same bytes once more on a new connection, within the time limits of the call. RunTask has a client
token, so the second one starts nothing.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import botocore.session
import pycurl
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies

from ecs_queue.ecs.classify import HANDSHAKE_FAILED
from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError

#: Versions, as 0xMMmmpp, of which REQUEST_SIZE is always 0: whether a request was sent is not known (curl/curl#13269).
_COUNTS_NOTHING = range(0x080700, 0x080800)
#: What a header must not hold: it would begin another one, or end libcurl's text.
_UNSAFE_IN_HEADERS = re.compile(r"[\r\n\0]")
#: The last part of a host's name that libcurl takes for an address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
#: As http.client sends it; libcurl leaves out `Expect` and `Accept`, which it would add.
_OWN_HEADERS = (b"Accept-Encoding: identity", b"Accept:", b"Expect:")
#: libcurl's errors: no connection was made, TLS was not agreed on, the connection ended before the answer did.
_UNREACHED = frozenset({pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT})
_REFUSED_BY_TLS = frozenset(
    {
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_CLOSED = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_PARTIAL_FILE})


class CurlHttpClient:
    """libcurl for any number of ECS clients. Thread-safe: each thread has a handle, which keeps its connections open.

    Like botocore's own session it must not be used on both sides of a fork. In the main thread the handler of a signal
    runs when the call has ended.

    Raises:
        ConfigError: this libcurl does not say whether it has sent a request.
    """

    def __init__(self) -> None:
        _, version, number, *_ = pycurl.version_info()
        if number in _COUNTS_NOTHING:
            raise ConfigError(
                f"http_client: expected a libcurl other than 8.7, found {version}: it does not say whether a failed "
                "call was sent; install a wheel of pycurl (pip install --upgrade --only-binary pycurl pycurl), or set "
                "http_client = botocore"
            )
        self._handle = _ThreadHandle()

    def attach(self, client: Any, verify: bool | str | None, profile_name: str | None) -> bool:
        """Send this client's calls with libcurl, and return True; False: botocore's own session sends them.

        The latter is so where a proxy, a client certificate, TLS without verification or an unusual host is configured.

        Args:
            client: botocore's client of ECS.
            verify: What it was built with: whether TLS is verified, or a file of certificate authorities.
            profile_name: The profile of the AWS config files that it was built with.
        """
        ca_file = get_cert_path(_find_verify(verify, profile_name))
        if not ca_file or not _can_imitate(client.meta):
            return False
        config = client.meta.config
        sender = _Sender(self._handle, str(ca_file), config.connect_timeout, config.read_timeout)
        # Handlers of single operations come first: the gateway checks RunTask's deadline before anything is sent.
        client.meta.events.register("before-send.ecs", sender.send)
        return True


class _ThreadHandle(threading.local):
    """The handle of this thread, and what it received last."""

    def __init__(self) -> None:
        self.header_lines: list[bytes] = []
        self.body: list[bytes] = []
        self.curl = self._open()

    def renew(self) -> None:
        """Close the connections of this thread, and read the file of authorities again: libcurl keeps it for a day."""
        self.curl.close()
        self.curl = self._open()

    def _open(self) -> Any:
        curl = pycurl.Curl()
        options = {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PATH_AS_IS: 1,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PROXY: "",
            pycurl.TCP_KEEPALIVE: 1,
            pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.HEADERFUNCTION: self.header_lines.append,
            pycurl.WRITEFUNCTION: self.body.append,
        }
        for option, value in options.items():
            curl.setopt(option, value)
        # Else the system's authorities would count besides those of CAINFO.
        curl.unsetopt(pycurl.CAPATH)
        return curl


class _Sender:
    """Sends the calls of one client."""

    def __init__(self, handle: _ThreadHandle, ca_file: str, connect_timeout: float, read_timeout: float) -> None:
        self._handle = handle
        self._options = {
            pycurl.CAINFO: ca_file,
            pycurl.CONNECTTIMEOUT_MS: _milliseconds(connect_timeout),
            pycurl.TIMEOUT_MS: _milliseconds(connect_timeout + read_timeout),
        }

    def send(self, request: Any, **_kwargs: object) -> AWSResponse | None:
        """Return the answer; None leaves the request to botocore.

        Raises:
            BotoCoreError: the one that botocore's own session raises, of which the class says whether the request can
                have been sent.
        """
        headers = _format_headers(request)
        if headers is None or request.method != "POST" or not isinstance(request.body, bytes):
            return None
        handle = self._handle
        curl = handle.curl
        handle.header_lines.clear()
        handle.body.clear()
        for option, value in self._options.items():
            curl.setopt(option, value)
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, headers)
        curl.setopt(pycurl.POSTFIELDS, request.body)
        try:
            curl.perform()
        except pycurl.error as error:
            has_sent = curl.getinfo(pycurl.REQUEST_SIZE) > 0
            if error.args[0] in _REFUSED_BY_TLS:
                handle.renew()
            raise _find_error(error.args[0], error_text(error), request, has_sent=has_sent) from error
        status = curl.getinfo(pycurl.RESPONSE_CODE)
        if not status:
            raise ConnectionClosedError(error="no answer", request=request, endpoint_url=request.url)
        raw = _Body(b"".join(handle.body))
        handle.body.clear()
        return AWSResponse(request.url, status, _parse_headers(handle.header_lines), raw)


def _find_error(code: int, text: str, request: Any, *, has_sent: bool) -> BotoCoreError:
    """Return botocore's exception for an error of libcurl.

    "Could not connect" proves nothing where libcurl has sent the request on an old connection before. So only a call of
    which no byte was sent, on any connection, becomes an exception that says so.
    """
    url = request.url
    if not has_sent:
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return ConnectTimeoutError(endpoint_url=url, error=text)
        if code in _UNREACHED:
            return EndpointConnectionError(endpoint_url=url, error=text)
        if code in _REFUSED_BY_TLS:
            return SSLError(endpoint_url=url, error=f"{HANDSHAKE_FAILED}: {text}")
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return ReadTimeoutError(endpoint_url=url, error=text)
    if code in _CLOSED or code in _UNREACHED:
        return ConnectionClosedError(error=text, request=request, endpoint_url=url)
    return HTTPClientError(error=text)


class _Body:
    """An answer's body, as botocore reads it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_args: object, **_kwargs: object) -> Iterator[bytes]:
        """Yield all of it."""
        yield self._content


def _find_verify(verify: bool | str | None, profile_name: str | None) -> bool | str:
    """Return what botocore verifies TLS with where a client is built with `verify`."""
    if verify is None:
        try:
            verify = botocore.session.Session(profile=profile_name).get_config_variable("ca_bundle")
        except ProfileNotFound:  # the profile "default" need not exist
            verify = None
    return os.environ.get("REQUESTS_CA_BUNDLE", True) if verify is None else verify


def _can_imitate(meta: Any) -> bool:
    """Return whether libcurl sends what botocore sends: without a proxy, a certificate or an unusual endpoint."""
    config, endpoint = meta.config, meta.endpoint_url
    url = urlsplit(endpoint)
    proxies = get_environ_proxies(endpoint) if config.proxies is None else config.proxies
    has_extras = proxies.get(url.scheme) or config.proxies_config or config.client_cert
    return not has_extras and endpoint.isascii() and _has_signed_host(url) and url.scheme in ("http", "https")


def _has_signed_host(url: SplitResult) -> bool:
    """Return whether libcurl sends the host that botocore signs: as it stands in the URL, but in lower case.

    libcurl keeps the case, decodes %, and writes an address in its usual form: 127.1 as 127.0.0.1.
    """
    if url.netloc != url.netloc.lower() or "@" in url.netloc or "%" in url.netloc:
        return False
    host = url.hostname or ""
    try:
        return str(ip_address(host)) == host
    except ValueError:
        return _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is None


def _format_headers(request: Any) -> list[bytes] | None:
    """Return the request's headers as libcurl takes them; None for what it cannot send as it is."""
    lines = list(_OWN_HEADERS)
    for name, value in request.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        lowered = name.lower()
        if _UNSAFE_IN_HEADERS.search(text) or not text.strip() or lowered in ("transfer-encoding", "expect"):
            return None
        if lowered != "content-length":  # libcurl counts the bytes that it sends
            try:
                lines.append(f"{name}: {text}".encode("latin-1"))
            except UnicodeEncodeError:
                return None
    return lines


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Return the headers of the last answer: libcurl also gives those of "100 Continue" before it."""
    headers: dict[str, str] = {}
    for line in lines:
        if line.startswith(b"HTTP/"):
            headers.clear()
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            headers[name.strip()] = value.strip()
    return headers


def _milliseconds(seconds: float) -> int:
    """Return at least 1: 0 is no limit to libcurl."""
    return max(1, int(1000 * seconds))
