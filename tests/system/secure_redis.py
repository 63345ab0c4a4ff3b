"""A server that accepts only TLS with client certificates, and has the users of conf/redis-users.acl."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ecs_queue.local.redis_server import HOST, find_free_port
from tests.servers import require_redis_binary

USERS = Path(__file__).parents[2] / "conf" / "redis-users.acl"
#: The placeholders of the file and their values.
PASSWORDS = {
    f"{name}_PASSWORD": f"{name.lower()}-pw"
    for name in ("WORKER", "SUBMITTER", "AIRFLOW", "READER", "OPERATOR", "RUNNER", "CALL")
}
_ADMIN = "user admin on >admin-pw ~* &* +@all"
_DAY = datetime.timedelta(days=1)


class CertificateAuthority:
    """A certificate authority and the certificates that it issued: PEM files in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name("ecs-queue test CA")
        ca = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca = self._write("ca.pem", ca.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Issue a certificate for 127.0.0.1. Return its path and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
        certificate = self._certificate(_common_name(name), key, where)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        text = certificate.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.pem", text), self._write(f"{name}.key", pem)

    def _certificate(self, subject: x509.Name, key: Any, extension: Any, *, critical: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY)
        return builder.not_valid_after(now + _DAY).add_extension(extension, critical).sign(self._key, hashes.SHA256())

    def _write(self, name: str, text: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(text)
        return path


@dataclass(frozen=True)
class SecureRedis:
    """The address of the server and the credentials of its users."""

    port: int
    authority: CertificateAuthority
    certificate: tuple[Path, Path]

    def url(self, user: str, password: str, *, ca: bool = True, certificate: bool = True) -> str:
        """Return a URL with the test's CA and a client certificate."""
        options = [f"ssl_ca_certs={self.authority.ca}"] if ca else []
        if certificate:
            options += [f"ssl_certfile={self.certificate[0]}", f"ssl_keyfile={self.certificate[1]}"]
        return f"rediss://{user}:{password}@{HOST}:{self.port}/0?{'&'.join(options)}"

    def url_for(self, name: str) -> str:
        """Return the URL of a user of conf/redis-users.acl: worker, submitter, airflow, reader, operator or runner."""
        return self.url(f"ecs-queue-{name}", PASSWORDS[f"{name.upper()}_PASSWORD"])

    def admin(self) -> Any:
        """Return a client with all rights."""
        return redis.Redis.from_url(self.url("admin", "admin-pw"), socket_timeout=10)


@contextmanager
def run_secure_redis(folder: Path) -> Iterator[SecureRedis]:
    """Run the server within the context. If its program was built without TLS, a proxy terminates TLS."""
    binary = require_redis_binary()
    authority = CertificateAuthority(folder / "tls")
    files = authority.ca, *authority.issue("server")
    users = USERS.read_text()
    for placeholder, password in PASSWORDS.items():
        users = users.replace(placeholder, password)
    acl = folder / "users.acl"
    acl.write_text(f"{users.strip()}\n{_ADMIN}\n")
    with contextlib.ExitStack() as stack:
        try:
            port = stack.enter_context(_run_with_tls(binary, folder, acl, files))
        except _ServerExited:
            port = stack.enter_context(_run_behind_proxy(binary, folder, acl, files))
        yield SecureRedis(port, authority, authority.issue("client"))


class _ServerExited(Exception):  # noqa: N818
    """The server's program has exited: it does not support TLS or another option."""


@contextmanager
def _run_with_tls(binary: str, folder: Path, acl: Path, files: tuple[Path, Path, Path]) -> Iterator[int]:
    port = find_free_port()
    ca, certificate, key = map(str, files)
    tls = ["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca]
    with _run_server(
        [binary, "--port", "0", "--aclfile", str(acl), *tls, "--tls-auth-clients", "yes"], folder
    ) as server:
        _wait_for_port(port, server)
        yield port


@contextmanager
def _run_behind_proxy(binary: str, folder: Path, acl: Path, files: tuple[Path, Path, Path]) -> Iterator[int]:
    ca, certificate, key = files
    behind = find_free_port()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    with _run_server([binary, "--port", str(behind), "--aclfile", str(acl)], folder) as server:
        _wait_for_port(behind, server)
        front = _TlsProxy(context, behind)
        try:
            yield front.port
        finally:
            front.close()


class _TlsProxy:
    """Terminates TLS and forwards everything, on its own thread."""

    def __init__(self, context: ssl.SSLContext, server_port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server_port = server_port
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, HOST, 0, ssl=context), self._loop)
        self._server = started.result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # aborted transports close in the next turn

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(HOST, self._server_port)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(_copy_stream(reader, back), _copy_stream(onward, writer))
        finally:
            back.transport.abort()
            writer.transport.abort()


async def _copy_stream(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@contextmanager
def _run_server(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    options = ["--bind", HOST, "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        if process.poll() is not None:
            raise _ServerExited
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.02)
        else:
            return


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
