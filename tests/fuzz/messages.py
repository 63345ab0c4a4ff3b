"""The targets `envelope`, `result` and `taskfile`: what clients and other programs send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from hypothesis import strategies as st

from ecs_queue.cli.ui.task_file import prepare_task_lines, read_task_lines
from ecs_queue.client.client import EcsQueue
from ecs_queue.errors import InvalidRequest, PermanentError, UndecodableMessage, UsageError
from ecs_queue.messages import envelope
from ecs_queue.messages.keyring import NO_KEYS, Keyring
from ecs_queue.messages.request import MAX_BODY_BYTES, TaskRequest
from ecs_queue.runtask.launch_spec import build_launch_spec, build_queued_task, build_submission, decode_launch_spec
from tests.fuzz.mutations import changed_json, dump, inputs
from tests.fuzz.runner import Target
from tests.messages.golden_messages import BOTH, GOLDEN, SEALS, SIGNS, golden
from tests.worker.harness import make_config

#: JSON becomes Python objects of up to 60 times its size ("[]," is three bytes and an empty list).
_MAX_BYTES = 1024**2 + 100 * MAX_BODY_BYTES
_REQUESTS = [path.read_bytes() for path in sorted(GOLDEN.iterdir()) if not path.name.startswith(("result", "args"))]
_CLEAR_REQUESTS = [golden("request-v1-full"), golden("request-v1-minimal"), golden("request-v1-of-a-newer-producer")]
_RESULTS = [golden("result-v1-failed"), golden("result-v1-never-launched"), golden("result-v1-signed")]
_PROFILE = make_config().profile("default")

_Signed = tuple[Keyring, bytes, bytes]  # the keys, what they signed, and what came of it on its way


def _requests() -> st.SearchStrategy[_Signed]:
    """Requests: with keys that are not used; signed after a change; changed after they were signed."""
    objects = [msgspec.json.decode(text) for text in _CLEAR_REQUESTS]
    changed = st.sampled_from(objects).flatmap(changed_json)
    return st.one_of(
        st.tuples(st.sampled_from((NO_KEYS, SIGNS, SEALS, BOTH)), st.just(b""), inputs(_REQUESTS, objects)),
        changed.map(dump).map(lambda text: (SIGNS, signed := SIGNS.sign(text, ("request",)), signed)),
        changed.map(_seal),
        _changed_after(SIGNS, [golden("request-v1-signed")]),
        _changed_after(BOTH, [golden("request-v1-sealed-and-signed")]),
    )


def _seal(value: object) -> _Signed:
    """A request of a producer with the keys, whose sealed part may be anything."""
    if not isinstance(value, dict):
        text = dump(value)
    else:
        clear = {name: item for name, item in value.items() if name not in ("command", "executor_config")}
        secrets = dump({name: value[name] for name in value.keys() - clear.keys()})
        scope = ("request", str(value.get("id")).encode(errors="replace").decode(), "default")
        text = dump({**clear, "queue": "default", "sealed": BOTH.seal(secrets, scope)})
    signed = BOTH.sign(text, ("request",))
    return BOTH, signed, signed


def _changed_after(keyring: Keyring, signed: list[bytes]) -> st.SearchStrategy[_Signed]:
    objects = [msgspec.json.decode(text) for text in signed]
    return st.tuples(st.just(keyring), st.just(signed[0]), inputs(signed, objects))


def _check_request(example: _Signed) -> None:
    keyring, signed, body = example
    assert 0 <= envelope.read_priority(body) <= 9
    try:
        request = envelope.decode_request(body, keyring)
    except UndecodableMessage:
        return
    if keyring.has_signing_keys:
        # White space may follow a signed text; nothing else may differ.
        assert body.rstrip() == signed.rstrip() or body.rstrip() in [text.rstrip() for text in _REQUESTS]
    _check_round_trip(request, keyring)
    _check_launch(request, body)


def _check_round_trip(request: TaskRequest, keyring: Keyring) -> None:
    try:
        again = envelope.encode(request, keyring)
    except InvalidRequest:
        return  # longer in our spelling of JSON than in the sender's
    found = envelope.decode_request(again, keyring)
    assert found == request
    assert found.digest() == request.digest()


def _check_launch(request: TaskRequest, body: bytes) -> None:
    """What a worker does next."""
    build_submission(request, body, "nonce", 60.0)
    try:
        spec = build_launch_spec(_PROFILE, 3, build_queued_task(request, 1, request.submitted_at))
    except PermanentError:
        return
    assert decode_launch_spec(spec.encode()) == spec


def _check_result(example: _Signed) -> None:
    keyring, signed, body = example
    try:
        result = envelope.decode_result(body, keyring)
    except UndecodableMessage:
        return
    if keyring.has_signing_keys:
        assert body.rstrip() in (signed.rstrip(), *(text.rstrip() for text in _RESULTS))
    assert envelope.decode_result(envelope.encode(result, keyring), keyring) == result
    json.dumps(result.to_result_line())
    assert result.succeeded in (True, False)


def _results() -> st.SearchStrategy[_Signed]:
    objects = [msgspec.json.decode(text) for text in _RESULTS[:2]]
    changed = st.sampled_from(objects).flatmap(changed_json)
    return st.one_of(
        st.tuples(st.sampled_from((NO_KEYS, SIGNS)), st.just(b""), inputs(_RESULTS, objects)),
        changed.map(dump).map(lambda text: (SIGNS, signed := SIGNS.sign(text, ("result",)), signed)),
        _changed_after(SIGNS, _RESULTS[2:]),
    )


_TASKS = (
    b'{"id": "a", "command": ["echo", "x"], "priority": 3, "expires_in": "90s", "time_limit": 60}',
    b'{"command": ["true"], "executor_config": {"cpu": 512, "environment": [{"name": "A", "value": "b"}]}}',
    b'{"command": ["true"], "queue": "default", "relaunch": "any_failure", "executor_config": {"overrides": '
    b'{"containerOverrides": [{"name": "main", "memory": 1}], "taskRoleArn": "x"}, "tags": [{"key": "a"}]}}',
)


def _task_files() -> st.SearchStrategy[bytes]:
    line = inputs(_TASKS, [msgspec.json.decode(text) for text in _TASKS])
    return st.lists(line, max_size=3).map(b"\n".join)


@contextmanager
def open_task_file_target() -> Iterator[Target]:
    """Read a file of `submit --file` and prepare its lines."""
    config = make_config()
    with EcsQueue.from_config(environ={}, overrides={"broker_url": "memory://"}, owner="") as queue:
        plain = EcsQueue(config, queue._broker, queue.ledger, owner="")

        def check(data: bytes) -> None:
            for client in (queue, plain):  # one without a profile, and one that checks with it
                try:
                    lines = read_task_lines("TASKS.jsonl", data, {"queue": "default"})
                    prepared = prepare_task_lines(client, "TASKS.jsonl", lines, lambda: None)
                except (PermanentError, UsageError) as error:
                    if not str(error).startswith("TASKS.jsonl"):
                        raise
                    continue
                for item in prepared:
                    body = item.to_message().body
                    assert envelope.decode_request(body) == item.request

        yield Target(_task_files(), check, max_bytes=4 * 1024**2)


@contextmanager
def open_envelope_target() -> Iterator[Target]:
    """Decode a request, with and without keys, encode it again, and build what is launched."""
    yield Target(_requests(), _check_request, _MAX_BYTES)


@contextmanager
def open_result_target() -> Iterator[Target]:
    """Decode a result, with and without keys, and encode it again."""
    yield Target(_results(), _check_result, _MAX_BYTES)
