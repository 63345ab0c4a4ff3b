"""No key, password or payload in any output, log, key of the server, list of processes, file of others, or repr."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from ecs_queue.broker import open_broker
from ecs_queue.cli.main import cli
from ecs_queue.client.client import EcsQueue
from ecs_queue.config import load_config
from ecs_queue.config.keyring import open_keyring
from ecs_queue.journal import open_journal
from ecs_queue.ledger import open_ledger
from ecs_queue.ledger.base import DeadLetter
from ecs_queue.local.ecs import LocalEcs, LocalEcsOptions, TimerRunner
from ecs_queue.local.redis_server import RedisServer
from ecs_queue.messages import envelope
from tests.processes import CLI_COMMAND, merged_environ, run_worker
from tests.restored_logging import restored_logging
from tests.security.fake_secrets import FakeSecrets
from tests.security.secret_installation import (
    ARGUMENT,
    EXECUTOR_CONFIG,
    KEYS,
    PASSWORD,
    PAYLOADS,
    SIGNING_SECRET,
    WAYS,
    SecretInstallation,
    found_in,
    open_admin,
)
from tests.servers import require_redis_binary
from tests.wait import wait_until

pytestmark = [pytest.mark.server, pytest.mark.slow]

#: Command -> its arguments where it succeeds. {tasks}, {journal}, {new}: files.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "submit": ("--file {tasks}",),
    "wait": ("waits --timeout 1",),
    "status": ("", "waits"),
    "top": ("",),
    "logs": ("waits",),
    "queues": ("", "--json"),
    "queues list": ("",),
    "queues pause": ("etl",),
    "queues resume": ("etl",),
    "tasks": ("--json",),
    "stop": ("stops",),
    "purge": ("etl", "default"),
    "retry": ("--state revoked",),
    "workers": ("--json", "--check"),
    "scale": ("", "--json"),
    "dead list": ("--json",),
    "dead show": ("letter",),
    "dead requeue": ("letter",),
    "dead purge": ("letter --yes",),
    "broken list": ("",),
    "broken show": ("record:broken",),
    "broken drop": ("record:broken --yes",),
    "journal show": ("waits", "waits --json", "waits --envelope"),
    "journal tail": ("--json",),
    "journal export": ("", "-o {new}"),
    "journal import": ("{journal} --append",),
    "cost": ("", "--json"),
    "replay": ("waits --explain", "waits --explain --json", "waits --submit"),
    "config": ("", "--json"),
    "acl": ("",),
    "conf list": ("--json",),
    "conf show": ("ecs_queue.cfg",),
    "doctor": ("", "--json"),
    "runner-key": ("etl",),
    "pools": ("", "--json"),
    "pools drain": ("etl",),
    "local env": ("", "--json"),
}
#: They run as processes below.
AS_PROCESSES = {"worker", "local", "local-ecs", "demo", "runner", "web"}
#: Commands whose output has the argument where payloads are not encrypted (docs/journal.md), the value never.
SHOWS_ARGUMENTS = {"journal show", "journal tail", "journal export", "replay"}
#: Of a broken record; `logs` without a container, `retry` without values, `runner-key` without keys, `local env`
#: without a stack.
_STATUSES = {
    **dict.fromkeys(("doctor", "status", "workers", "logs", "runner-key", "retry"), (0, 1)),
    "local env": (0, 2),
    "wait": (124,),
}
_UNREACHABLE = f"redis://:{PASSWORD}@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    with restored_logging():
        yield


@pytest.fixture(scope="module", params=[True, False], ids=["encrypted", "clear"])
def installation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server with a password and requests that no worker launches; with encryption keys and without."""
    with _run_installation(tmp_path_factory.mktemp("secrets"), encrypts=request.param) as made:
        yield made


@contextmanager
def _run_installation(directory: Path, *, encrypts: bool) -> Iterator[SecretInstallation]:
    with (
        RedisServer(binary=require_redis_binary(), password=PASSWORD) as server,
        LocalEcs(LocalEcsOptions(), TimerRunner()) as ecs,
        FakeSecrets() as secrets,
        closing(open_admin(server)) as admin,
    ):
        made = SecretInstallation(server, admin, directory, ecs.endpoint_url, encrypts, secrets)
        with EcsQueue.from_config(environ=made.environ("variables"), owner="") as queue:
            for name in ("waits", "stops"):
                queue.submit(["run", ARGUMENT], id=name, executor_config=EXECUTOR_CONFIG)
        yield made


def _leaf_commands(group: click.Group, path: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaf_commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def _prepare(made: SecretInstallation, folder: Path) -> dict[str, str]:
    """Leave a dead letter, a broken record and files for the next command; return the files' names."""
    ledger = open_ledger(load_config(environ=made.environ("variables")))
    with EcsQueue.from_config(environ=made.environ("variables"), owner="") as queue:
        request = queue.prepare({"id": "dead", "command": ["run", ARGUMENT], "executor_config": EXECUTOR_CONFIG})
        body = envelope.encode(request.request, queue.keyring)
    ledger.add_dead_letter(DeadLetter(key="letter", queue="default", reason="test", body=body))
    ledger.close()
    made.admin.set("{ecs-queue}:l:r:broken", "text")
    made.admin.hset("{ecs-queue}:l:broken", "record broken", "1.000 0 its key holds no hash")
    made.admin.zadd("{ecs-queue}:l:broken_checks", {"record broken": 1e10})
    tasks = folder / "TASKS.jsonl"
    tasks.write_text(json.dumps({"command": ["run", ARGUMENT], "executor_config": EXECUTOR_CONFIG}) + "\n")
    tasks.chmod(0o600)
    return {"tasks": str(tasks), "journal": str(folder / "journal.jsonl"), "new": str(folder / "new.jsonl")}


def test_every_command_is_in_the_table() -> None:
    assert set(_leaf_commands(cli)) - AS_PROCESSES <= COMMANDS.keys()


def test_no_command_shows_a_secret(installation: SecretInstallation, tmp_path: Path) -> None:
    files = _prepare(installation, tmp_path)
    exported = installation.invoke("variables", "journal", "export", "-o", files["journal"])
    assert exported.exit_code == 0, exported.output
    ways = itertools.cycle(WAYS)
    commands = sorted(set(_leaf_commands(cli)) - AS_PROCESSES, key=list(COMMANDS).index)
    for name in commands:
        for arguments in COMMANDS[name]:
            _prepare(installation, tmp_path)
            way, words = next(ways), [*name.split(), *arguments.format(**files).split()]
            succeeded = installation.invoke(way, *words)
            assert succeeded.exit_code in _STATUSES.get(name, (0,)), (name, succeeded.output)
            failed = installation.invoke(next(ways), *words, url=_UNREACHABLE)
            wrong = installation.invoke(way, *words, "--nonsense", "--broker-url", _UNREACHABLE)
            assert wrong.exit_code == 2
            for result in (succeeded, failed, wrong):
                _check_output(installation, name, way, result.stdout + result.stderr)
    for path in (files["journal"], files["new"]):
        _check_output(installation, "journal export", "file", Path(path).read_text())
    places = _check_server(installation)
    # The search finds them where they are.
    assert installation.encrypts or {("{ecs-queue}:l:payload:waits", canary) for canary in PAYLOADS} <= places


def _check_output(made: SecretInstallation, name: str, way: str, text: str) -> None:
    shown = {ARGUMENT} if name in SHOWS_ARGUMENTS and not made.encrypts else set()
    assert set(found_in(text, KEYS + PAYLOADS)) - shown == set(), (name, way)


def _check_server(made: SecretInstallation) -> set[tuple[str, str]]:
    """Return where on the server payloads stand: only where docs/security.md says; keys and passwords nowhere."""
    places = set()
    for key, value in made.stored():
        assert found_in(value, KEYS) == [], key
        places |= {(key, canary) for canary in found_in(value, PAYLOADS)}
    if made.encrypts:
        assert places == set()
        return places
    allowed = ("{ecs-queue}:l:payload:", "{ecs-queue}:l:dead_letters", "{ecs-queue}:q:")
    others = {(key, canary) for key, canary in places if not key.startswith(allowed)}
    assert {canary for _, canary in others} <= {ARGUMENT}, others
    assert {key for key, _ in others} <= {"{ecs-queue}:j:s"}, others
    return places


@pytest.mark.parametrize("way", WAYS)
def test_config_and_reprs_show_no_secret(
    installation: SecretInstallation, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in installation.environ(way).items():
        if name.startswith("AWS_"):  # boto3 reads them where they are
            monkeypatch.setenv(name, value)
    for words in (("config",), ("config", "--json")):
        result = installation.invoke(way, *words)
        assert (result.exit_code, found_in(result.output, KEYS)) == (0, [])
        assert "***" in result.output
    config = load_config(environ=installation.environ(way))
    ledger, broker, journal = open_ledger(config), open_broker(config), open_journal(config)
    with EcsQueue.from_config(environ=installation.environ(way), owner="") as queue:
        prepared = queue.prepare({"command": ["run", ARGUMENT], "executor_config": EXECUTOR_CONFIG})
        records = queue.ledger.get_with_payload(["waits"])
        keyring = open_keyring(config)
        objects: list[Any] = [
            config,
            config.profile("default"),
            ledger,
            broker,
            journal,
            queue,
            keyring,
            prepared,
            *records,
        ]
        objects += [prepared.request, prepared.submission, prepared.to_message()]
        objects += [installation.server, *(config.signing_keys or ())]
        objects += [value for owner in (ledger, broker, journal, queue, keyring) for value in _members(owner)]
        for shown in (f(each) for each in objects for f in (repr, str)):
            assert found_in(shown, KEYS + PAYLOADS) == [], shown[:40]
    for each in (ledger, broker, journal):
        each.close()


def _members(owner: Any) -> list[Any]:
    """The package's own objects that an object holds: a debugger or a traceback shows them."""
    held = vars(owner).values() if hasattr(owner, "__dict__") else [getattr(owner, name) for name in owner.__slots__]
    return [value for value in held if type(value).__module__.startswith("ecs_queue")]


@pytest.fixture
def served_installation(tmp_path: Path) -> Iterator[SecretInstallation]:
    """One whose requests a worker may launch."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    with _run_installation(directory, encrypts=True) as made:
        yield made


def test_no_process_shows_a_secret(served_installation: SecretInstallation, tmp_path: Path) -> None:
    installation = served_installation
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environ = merged_environ(installation.environ("references to AWS"), {"TMPDIR": str(temporary)})
    runner = {"ECS_QUEUE_RUNNER_URL": installation.server.url, "ECS_QUEUE_RUNNER_KEY": f"k1:{SIGNING_SECRET}"}
    with ExitStack() as stack:
        stack.enter_context(run_worker(environ | runner, tmp_path / "runner.log", "runner", command=CLI_COMMAND))
        demo = None
        started = (["worker", "--log-level", "debug"], ["local"], ["local-ecs"], ["web", "--port", "0"])
        for name, *options in (*started, ["demo", "--tasks", "1"]):
            log = tmp_path / f"{name}.log"
            demo = stack.enter_context(run_worker(environ, log, name, *options, command=CLI_COMMAND))
        with EcsQueue.from_config(environ=installation.environ("files"), owner="") as queue:
            handle = queue.submit(["run", ARGUMENT], executor_config=EXECUTOR_CONFIG)
            wait_until(lambda: queue.status(handle.id).is_terminal or queue.status(handle.id).calls, "it is called", 30)
        seen = _command_lines(psutil.Process(os.getpid()))
        files = [path for path in temporary.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
        seen += [path.read_bytes().decode(errors="replace") for path in files]
        assert demo is not None
        assert demo.wait(60) == 0
    logs = [path.read_text() for path in sorted(tmp_path.glob("*.log"))]
    assert all(logs)
    assert len(logs) == len(AS_PROCESSES)
    for text in (*seen, *logs):
        assert found_in(text, KEYS + PAYLOADS) == [], text[:2000]
    _check_server(installation)


def _command_lines(process: psutil.Process) -> list[str]:
    """The command lines of all processes below this one, as every user of the host sees them."""
    found = []
    for child in process.children(recursive=True):
        try:
            found.append(" ".join(child.cmdline()))
        except psutil.NoSuchProcess:
            continue
    assert any("worker" in line for line in found)
    return found
