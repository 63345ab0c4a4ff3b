"""Another user of the host can neither use nor read a local stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError

from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import UsageError
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, TimerRunner, new_access_key_id
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.local.running_stacks import find_environments, publish_environment
from ecs_queue.local.stack import LocalStack, StackOptions
from tests.processes import CLI_COMMAND, IMPORT_ROOT, assert_process_ended
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

_OTHER_USER = 65534
#: Tries everything that needs no secret, as another user where it can become one, and prints what came of each.
_INTRUDER = """
import encodings.idna, http.client, json, os, socket, sys
port, redis_port, directory, temporary, user = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
pids = sys.argv[6:]
if user:
    os.setgroups([]); os.setgid(int(user)); os.setuid(int(user))

def call(method, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    command = {"containerOverrides": [{"name": "main", "command": ["true"]}]}
    body = json.dumps({"cluster": "local", "taskDefinition": "local", "overrides": command})
    connection.request(method, path, body, {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask", **headers})
    return connection.getresponse().status

def attempt(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__

def ask_redis():
    with socket.create_connection(("127.0.0.1", redis_port), 10) as connection:
        connection.sendall(b"GET x\\r\\n")
        return connection.recv(100).decode().split()[0]

print(json.dumps({
    "unsigned": call("POST", "/"),
    "guessed": call("POST", "/", Authorization="AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/ecs/aws4_request"),
    "counters": call("GET", "/_local/stats"),
    "redis": ask_redis(),
    "directory": attempt(lambda: os.listdir(directory)),
    "exports": attempt(lambda: open(directory + "/env.sh").read()),
    "temporary": sorted({attempt(lambda: os.listdir(os.path.join(temporary, one))) for one in os.listdir(temporary)}),
    "environments": sorted({attempt(lambda: open(f"/proc/{pid}/environ").read()) for pid in pids}),
}))
"""


@dataclass(frozen=True, kw_only=True)
class RunningStack:
    """A stack that `ecs-queue local` runs, with a task that has run on it."""

    process: psutil.Process
    directory: Path
    temporary: Path
    environ: dict[str, str]
    progress: str

    @property
    def ports(self) -> tuple[int, int]:
        """Of the local ECS and of the server."""
        ecs = self.environ["AWS_ENDPOINT_URL_ECS"]
        return int(ecs.rpartition(":")[2]), int(self.environ["AIRFLOW__ECS_QUEUE__BROKER_URL"].split(":")[-1][:-2])

    @property
    def secrets(self) -> list[str]:
        """The access key and the password."""
        return [self.environ["AWS_ACCESS_KEY_ID"], self.environ["AIRFLOW__ECS_QUEUE__BROKER_URL"].split("@")[0][9:]]


@pytest.fixture(scope="module")
def stack() -> Iterator[RunningStack]:
    """One for all tests of the module, in a directory that every user can reach, under the usual umask."""
    require_redis_binary()
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        kept, temporary = Path(place, "kept"), Path(place, "tmp")
        temporary.mkdir(mode=0o755)
        environ = {**os.environ, "TMPDIR": str(temporary)}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*CLI_COMMAND, "local", "--json", "--dir", str(kept)]
        with subprocess.Popen(command, env=environ, umask=0o022, **pipes) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            exports = json.loads(process.stdout.readline())["environment"]
            progress = "".join(process.stderr.readline().decode() for _ in range(4))
            with EcsQueue.from_config(environ={**os.environ, **exports}) as queue:
                assert queue.submit(["sh", "-c", "echo hello; exit 3"]).result(timeout=30).exit_code == 3
            yield RunningStack(
                process=psutil.Process(process.pid),
                directory=kept,
                temporary=temporary,
                environ=exports,
                progress=progress,
            )
            process.send_signal(signal.SIGINT)
            process.wait(20)


def test_another_user_gets_nothing_of_a_running_stack(stack: RunningStack) -> None:
    pids = [str(process.pid) for process in [stack.process, *stack.process.children(recursive=True)]]
    is_root = os.geteuid() == 0
    places = [str(stack.directory), str(stack.temporary)]
    arguments = [*map(str, stack.ports), *places, str(_OTHER_USER) if is_root else "", *pids]
    done = subprocess.run([sys.executable, "-c", _INTRUDER, *arguments], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert {name: found.pop(name) for name in ("unsigned", "guessed", "counters", "redis")} == {
        "unsigned": 400,
        "guessed": 400,
        "counters": 400,
        "redis": "-NOAUTH",
    }
    # Without root this is the same user, who may read these; the modes are asserted below.
    if is_root:
        assert found == {
            "directory": "PermissionError",
            "exports": "PermissionError",
            "temporary": ["PermissionError"],
            "environments": ["PermissionError"],
        }


def test_no_file_of_a_stack_can_be_read_by_others(stack: RunningStack) -> None:
    paths = [stack.directory, *stack.directory.rglob("*"), *stack.temporary.rglob("*")]
    names = {path.name for path in paths}
    assert {"env.sh", "local-1.log", "server.log", "server.conf", "appendonlydir", "tasks"} <= names
    assert {path: oct(path.stat().st_mode) for path in paths if path.stat().st_mode & 0o077} == {}


def test_an_older_directory_that_all_could_read_is_closed(tmp_path: Path) -> None:
    for name in ("redis", "tasks"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name / "old").touch()
    for name in ("env.sh", "redis/server.log"):
        (tmp_path / name).touch(0o644)
    with LocalStack(StackOptions(workers=0, directory=tmp_path)):
        paths = [tmp_path / name for name in ("redis", "tasks", "env.sh", "redis/server.log")]
        assert [oct(path.stat().st_mode & 0o077) for path in paths] == ["0o0"] * 4


def test_a_directory_into_which_others_can_put_links_is_refused_and_no_link_is_followed(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign" if os.geteuid() == 0 else Path("/")
    if os.geteuid() == 0:
        foreign.mkdir()
        os.chown(foreign, _OTHER_USER, _OTHER_USER)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    for directory in (foreign, open_to_all):
        with pytest.raises(UsageError, match="choose another directory"):
            LocalStack(StackOptions(workers=0, directory=directory)).start()

    kept, target = tmp_path / "kept", tmp_path / "target"
    kept.mkdir()
    target.write_text("mine")
    (kept / "env.sh").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), LocalStack(StackOptions(workers=0, directory=kept)):
        pass
    assert target.read_text() == "mine"


def test_the_environment_of_another_users_stack_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell executes what `local env` prints."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with publish_environment({"AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:1"}):
        assert len(find_environments()) == 1
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert find_environments() == []


def test_the_secrets_are_in_no_process_list_and_no_log(stack: RunningStack) -> None:
    processes = [stack.process, *stack.process.children(recursive=True)]
    assert len(processes) >= 4
    seen = [" ".join(process.cmdline()) for process in processes] + [stack.progress]
    seen += [path.read_text() for path in stack.directory.rglob("*.log")]
    assert any("valkey" in text or "redis" in text for text in seen)
    for secret in stack.secrets:
        assert len(secret) >= 32
        assert not [text for text in seen if secret in text]


def test_each_stack_has_secrets_of_its_own_that_no_repr_shows() -> None:
    stacks = []
    for _ in range(2):
        with LocalStack(StackOptions(workers=0)) as stack:
            stacks.append(stack.exports)
    for name in ("AWS_ACCESS_KEY_ID", "AIRFLOW__ECS_QUEUE__BROKER_URL"):
        assert stacks[0][name] != stacks[1][name]
    options = LocalEcsOptions(access_key_id=new_access_key_id())
    assert str(options.access_key_id) not in repr(replace(StackOptions(), ecs=options))
    assert "hidden" not in repr(RedisServer(password="hidden"))


def test_the_local_ecs_answers_only_calls_with_its_access_key() -> None:
    with LocalEcs(LocalEcsOptions(access_key_id=new_access_key_id()), TimerRunner()) as server:
        client = boto3.client("ecs", endpoint_url=server.endpoint_url, region_name="us-east-1")
        with pytest.raises(ClientError, match=r"UnrecognizedClientException.*AWS_ACCESS_KEY_ID"):
            client.run_task(cluster="local", taskDefinition="local")
        client.close()
        assert server.stats()["tasks_created"] == 0


@pytest.mark.parametrize("options", [[], ["--any-access-key"]])
def test_the_command_local_ecs_prints_the_key_that_it_expects(options: list[str]) -> None:
    with _running_local_ecs(*options) as found:
        key = found["access_key_id"]
        assert (key is None) == bool(options)
        for given, is_accepted in ((key or "any", True), ("local", key is None)):
            client = boto3.client(
                "ecs",
                endpoint_url=found["endpoint_url"],
                region_name="us-east-1",
                aws_access_key_id=given,
                aws_secret_access_key="local",
            )
            if is_accepted:
                assert client.list_tasks(cluster="local")["taskArns"] == []
            else:
                with pytest.raises(ClientError, match="UnrecognizedClientException"):
                    client.list_tasks(cluster="local")
            client.close()


def test_two_stacks_never_use_one_directory(tmp_path: Path) -> None:
    options = StackOptions(workers=0, directory=tmp_path)
    with LocalStack(options), pytest.raises(UsageError, match="is used by another local stack"):
        LocalStack(options).start()
    with LocalStack(options):
        pass


@pytest.mark.parametrize("keeps_directory", [True, False])
def test_what_a_killed_stack_and_its_killed_reapers_leave_is_cleaned_up_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_directory: bool
) -> None:
    temporary, kept = tmp_path / "tmp", tmp_path / "kept"
    temporary.mkdir()
    code = """
import sys, time
from pathlib import Path
from ecs_queue.client.client import EcsQueue
from ecs_queue.local.stack import LocalStack, StackOptions
stack = LocalStack(StackOptions(directory=Path(sys.argv[1]) if sys.argv[1:] else None))
stack.start()
with EcsQueue.from_config(environ=stack.environ) as queue:
    queue.submit(["sleep", "600"])
    print("ready", flush=True)
    time.sleep(60)
"""
    environ = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code, *([str(kept)] if keeps_directory else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        parent = psutil.Process(process.pid)
        wait_until(lambda: any("sleep" in child.cmdline() for child in parent.children()), "the task runs", 20)
        children = parent.children(recursive=True)
        reapers = [child for child in children if any(word.endswith("reaper.py") for word in child.cmdline())]
        assert reapers
        for one in (*reapers, parent):
            one.send_signal(signal.SIGKILL)
        process.wait(10)
    left = [child for child in children if child not in reapers and child.is_running()]
    try:
        assert len(left) >= 3  # the server, the worker, the task
        assert list(temporary.iterdir())
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        with LocalStack(StackOptions(workers=0, directory=kept if keeps_directory else None)):
            for child in left:
                assert_process_ended(child.pid)
        assert list(temporary.iterdir()) == []
    finally:
        for child in left:
            with suppress(psutil.NoSuchProcess):
                child.kill()


@contextmanager
def _running_local_ecs(*options: str) -> Iterator[dict[str, Any]]:
    """What `ecs-queue local-ecs --json` prints."""
    with subprocess.Popen([*CLI_COMMAND, "local-ecs", "--json", *options], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
