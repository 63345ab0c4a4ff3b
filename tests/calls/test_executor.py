"""Functions that run in containers, with the container's side in this process."""

from __future__ import annotations

import concurrent.futures
import math
from collections.abc import Callable
from datetime import date
from typing import Any, cast

import msgspec
import pytest

from ecs_queue import CallFailed, EcsExecutor
from ecs_queue.calls import executor as calls_executor
from ecs_queue.calls.container import run_call
from ecs_queue.calls.executor import RemoteError, RemoteTraceback
from ecs_queue.calls.payload import CallOptions, Direction
from ecs_queue.calls.store import MemoryCallStore
from ecs_queue.client.request import RequestOptions
from ecs_queue.errors import (
    InvalidRequest,
    LedgerUnavailable,
    MissingRight,
    UndecodableMessage,
    UnverifiedMessage,
    UsageError,
)
from ecs_queue.messages.result import build_result
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.testing import MemoryQueue, Outcome, Task
from tests.calls import functions
from tests.calls.functions import Order, OwnError, add, fail, next_day, repeat
from tests.calls.harness import TIMEOUT, Containers


def test_a_function_gets_its_arguments_and_returns_its_value_as_declared(
    containers: Containers, executor: EcsExecutor
) -> None:
    future = executor.submit(next_day, Order(1, date(2025, 1, 1)), days=2)

    assert future.result(TIMEOUT) == Order(2, date(2025, 1, 3))
    (task,) = containers.queue.launched
    assert task.command == ["python", "-m", "ecs_queue.call"]
    assert containers.store.payloads == {}  # both are dropped once the value is here


def test_many_are_mapped_in_order_and_awaited_by_the_standard_library(executor: EcsExecutor) -> None:
    assert list(executor.map(add, [1, 2, 3], [10, 20, 30], timeout=TIMEOUT)) == [11, 22, 33]
    done, _ = concurrent.futures.wait([executor.submit(add, 1, 1) for _ in range(3)], TIMEOUT)
    assert [future.result() for future in done] == [2, 2, 2]


def test_an_exception_of_the_function_comes_back_with_the_containers_traceback(executor: EcsExecutor) -> None:
    with pytest.raises(ValueError, match="found odd one") as raised:
        executor.submit(fail, "odd one").result(TIMEOUT)

    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert "in fail" in str(raised.value.__cause__)
    own = executor.submit(fail, "own").exception(TIMEOUT)
    assert isinstance(own, OwnError)
    assert own.args == ("no", 7)


def test_a_module_that_the_container_does_not_have_is_named_with_what_to_do(
    executor: EcsExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add, "__module__", "reports.daily")
    with pytest.raises(ModuleNotFoundError, match="No module named 'reports'") as raised:
        executor.submit(add, 1, 2).result(TIMEOUT)

    assert "cannot import reports.daily: put it into its image" in str(raised.value.__cause__)


def test_an_exception_that_cannot_be_made_again_is_described(executor: EcsExecutor) -> None:
    with pytest.raises(RemoteError, match=r"tests\.calls\.functions\.OddError: 1:2"):
        executor.submit(fail, "odd").result(TIMEOUT)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("half of a pair", r"builtins\.ValueError: \\ud800"),
        ("cancelled", r"asyncio\.exceptions\.CancelledError: "),
        ("group", r"builtins\.BaseExceptionGroup: several"),
    ],
)
def test_an_exception_of_any_kind_is_described(executor: EcsExecutor, kind: str, text: str) -> None:
    with pytest.raises(RemoteError, match=text) as raised:
        executor.submit(functions.raise_odd, kind).result(TIMEOUT)

    assert "in raise_odd" in str(raised.value.__cause__)


def test_an_exception_whose_text_cannot_be_made_comes_back(executor: EcsExecutor) -> None:
    with pytest.raises(functions.UnreadableError):
        executor.submit(functions.raise_odd, "unreadable").result(TIMEOUT)


def test_the_keys_of_an_object_are_converted_as_declared(executor: EcsExecutor) -> None:
    assert executor.submit(functions.double_keys, {1: 0.5, 2: 1}).result(TIMEOUT) == {2: 0.5, 4: 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, [1, -math.inf, None], {"a": math.nan}])
def test_a_number_that_json_has_not_is_refused_and_does_not_become_none(executor: EcsExecutor, value: object) -> None:
    with pytest.raises(UsageError, match="finite numbers"):
        executor.submit(functions.same, value)


def test_none_and_the_word_null_are_sent(executor: EcsExecutor) -> None:
    assert executor.submit(functions.same, [None, "null", {"null": None}]).result(TIMEOUT) == [
        None,
        "null",
        {"null": None},
    ]


def test_what_is_not_as_declared_is_named(executor: EcsExecutor) -> None:
    with pytest.raises(UsageError, match=r"the argument b is not what the function declares: Expected `int`"):
        executor.submit(add, 1, cast("int", "x")).result(TIMEOUT)
    with pytest.raises(UsageError, match=r"the value is not what the function declares: Expected `int`"):
        executor.submit(functions.declare_wrongly).result(TIMEOUT)


def test_a_container_that_ends_without_a_value_is_said_so(containers: Containers, executor: EcsExecutor) -> None:
    containers.queue.end_with(lambda task: 137)

    with pytest.raises(CallFailed, match="ended as FAILED without a value") as raised:
        executor.submit(add, 1, 1).result(TIMEOUT)

    assert raised.value.result.exit_code == 137
    assert str(raised.value).endswith(f"; what it wrote: ecs-queue logs {raised.value.result.id}")
    assert containers.store.payloads == {}


@pytest.mark.parametrize(("exit_code", "kind"), [(137, CallFailed), (0, MissingRight)])
def test_a_value_that_may_not_be_read_is_missing_unless_the_container_has_written_it(
    containers: Containers,
    executor: EcsExecutor,
    monkeypatch: pytest.MonkeyPatch,
    exit_code: int,
    kind: type[Exception],
) -> None:
    def deny(call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        raise MissingRight("denied")

    monkeypatch.setattr(containers.store, "get", deny)
    containers.queue.end_with(lambda task: exit_code)

    with pytest.raises(kind):
        executor.submit(add, 1, 1).result(TIMEOUT)


def test_the_call_of_a_request_whose_end_is_unknown_is_kept(containers: Containers, executor: EcsExecutor) -> None:
    def forget(task: Task) -> Outcome:
        result = build_result(containers.queue.status(task.id))
        containers.queue.results.deliver(msgspec.structs.replace(result, state="UNKNOWN"))
        return 0

    containers.queue.end_with(forget)
    with pytest.raises(CallFailed, match="ended as UNKNOWN"):
        executor.submit(add, 1, 1).result(TIMEOUT)

    assert [direction for _, direction in containers.store.payloads] == ["in"]


def test_a_value_beyond_max_bytes_is_not_read(containers: Containers, executor: EcsExecutor) -> None:
    def enlarge(options: CallOptions) -> None:
        containers.store.payloads[options.id, "out"] += b" " * options.max_bytes

    containers.after = enlarge
    with pytest.raises(UndecodableMessage, match="more than max_bytes"):
        executor.submit(add, 1, 1).result(TIMEOUT)


def test_arguments_beyond_the_named_ones_are_converted_as_declared(executor: EcsExecutor) -> None:
    first, last = date(2025, 1, 1), date(2025, 1, 3)

    future = executor.submit(functions.count_days, first, last, last, days=Order(2, first), last=Order(4, last))
    assert future.result(TIMEOUT) == [2, 2, 2, 4]


DAY = 86400.0


@pytest.mark.parametrize(
    ("launch_deadline", "options", "latest_launch"),
    [
        (14 * DAY, {}, 14 * DAY),
        (5.0, {}, 5.0),
        (14 * DAY, {"expires_in": 60}, 60.0),
        (5.0, {"expires_in": "30d"}, 30 * DAY),
        (5.0, {"delay": "10d"}, 10 * DAY + 5.0),
        (14 * DAY, {"delay": "10d", "expires_in": 60}, 10 * DAY + 60.0),
    ],
)
def test_a_payload_is_kept_for_a_day_longer_than_its_request_may_be_launched(
    launch_deadline: float, options: RequestOptions, latest_launch: float
) -> None:
    kept: list[float] = []

    class NotingStore(MemoryCallStore):
        def put(self, call_id: str, direction: Direction, payload: bytes, seconds: float) -> None:
            kept.append(seconds)

    environ = {"AIRFLOW__ECS_QUEUE__LAUNCH_DEADLINE": str(launch_deadline)}
    with MemoryQueue(environ=environ) as queue, EcsExecutor(queue, store=NotingStore(), **options) as executor:
        executor.submit(add, 1, 1).cancel()

    assert kept == [pytest.approx(latest_launch + DAY)]


def test_nothing_is_stored_of_a_call_whose_request_is_invalid() -> None:
    store = MemoryCallStore()
    with (
        MemoryQueue() as queue,
        EcsExecutor(queue, store=store, priority=10) as executor,
        pytest.raises(InvalidRequest, match="priority"),
    ):
        executor.submit(add, 1, 1)

    assert store.payloads == {}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda executor: executor.submit(lambda: 1), "at the top level of a module"),
        (lambda executor: executor.submit(add, object(), 1), "the arguments of .*add cannot be written as JSON"),
        (lambda executor: executor.submit(repeat, "x" * 3_000_000, 1), r"more than max_bytes \(1048576\)"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_submitted(
    containers: Containers, executor: EcsExecutor, call: Callable[[EcsExecutor], object], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        call(executor)

    assert not containers.queue.launched


def test_a_value_that_is_too_large_or_no_json_raises(executor: EcsExecutor) -> None:
    with pytest.raises(UsageError, match="more than max_bytes"):
        executor.submit(repeat, "x", 2_000_000).result(TIMEOUT)
    with pytest.raises(UsageError, match="the value that the function returned cannot be written as JSON"):
        executor.submit(functions.return_set).result(TIMEOUT)


def test_a_call_that_was_changed_is_not_run_and_a_forged_value_is_not_believed(signed: Containers) -> None:
    def replace(direction: str, old: bytes, new: bytes) -> Callable[[CallOptions], object]:
        def change(options: CallOptions) -> None:
            payload = signed.store.payloads[options.id, direction]
            assert old in payload
            signed.store.payloads[options.id, direction] = payload.replace(old, new)

        return change

    with EcsExecutor(signed.queue, store=signed.store) as executor:
        signed.before = replace("in", b'"name":"add"', b'"name":"fail"')
        with pytest.raises(CallFailed):
            executor.submit(add, 1, 1).result(TIMEOUT)

        signed.before = lambda options: None
        signed.after = replace("out", b'"raised":""', b'"raised":"a.b"')
        with pytest.raises(UnverifiedMessage, match="changed or made for another call"):
            executor.submit(add, 1, 1).result(TIMEOUT)


def test_the_value_of_another_call_is_not_believed(signed: Containers) -> None:
    values: list[bytes] = []

    def keep_or_replay(options: CallOptions) -> None:
        values.append(signed.store.payloads[options.id, "out"])
        signed.store.payloads[options.id, "out"] = values[0]

    signed.after = keep_or_replay
    with EcsExecutor(signed.queue, store=signed.store) as executor:
        assert executor.submit(add, 1, 1).result(TIMEOUT) == 2
        with pytest.raises(UnverifiedMessage):
            executor.submit(add, 2, 2).result(TIMEOUT)


class TestCloudpickle:
    def test_it_sends_any_function_and_value(self, signed: Containers) -> None:
        base = 40
        with EcsExecutor(signed.queue, store=signed.store, serializer="cloudpickle") as executor:
            assert executor.submit(lambda number: {base + number}, 2).result(TIMEOUT) == {42}

    def test_an_exception_that_cannot_be_unpickled_is_described(self, signed: Containers) -> None:
        with (
            EcsExecutor(signed.queue, store=signed.store, serializer="cloudpickle") as executor,
            pytest.raises(RemoteError, match=r"OddError: 1:2"),
        ):
            executor.submit(fail, "odd").result(TIMEOUT)

    def test_it_needs_signing_keys_on_both_sides(self, signed: Containers) -> None:
        with Containers({}).queue as unsigned, pytest.raises(UsageError, match="needs signing_keys"):
            EcsExecutor(unsigned, store=MemoryCallStore(), serializer="cloudpickle")
        options = CallOptions(id="a", namespace="n", queue="default", serializer="cloudpickle", max_bytes=100)
        with pytest.raises(UnverifiedMessage, match="nothing is unpickled without a key"):
            run_call(options, signed.store, RunnerKeys())

    def test_nothing_is_unpickled_before_it_is_verified(
        self, signed: Containers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ecs_queue.calls.container.load_pickled_call", lambda call: pytest.fail("it was unpickled"))
        options = CallOptions(id="a", namespace="n", queue="default", serializer="cloudpickle", max_bytes=100)
        signed.store.put("a", "in", b'v1::p:{"value":""}', 1.0)

        with pytest.raises(UnverifiedMessage):
            run_call(options, signed.store, signed.keys)


def test_the_value_is_there_also_when_its_payload_cannot_be_dropped(
    containers: Containers, executor: EcsExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_delete(call_id: str) -> None:
        raise LedgerUnavailable("gone")

    monkeypatch.setattr(containers.store, "delete", fail_to_delete)

    assert executor.submit(add, 1, 1).result(TIMEOUT) == 2


@pytest.mark.parametrize(("seconds", "is_delayed"), [(60.0, True), (0.0, False)])
def test_an_outage_between_the_end_and_the_value_delays_it_for_a_while(
    signed: Containers, monkeypatch: pytest.MonkeyPatch, seconds: float, is_delayed: bool
) -> None:
    monkeypatch.setattr(calls_executor, "_FETCH_SECONDS", seconds)
    monkeypatch.setattr(calls_executor, "_FETCH_PAUSE_SECONDS", 0.0)
    get, failures = signed.store.get, [LedgerUnavailable("gone")] * 2

    def get_or_fail(call_id: str, direction: Direction, max_bytes: int) -> bytes | None:
        if direction == "out" and failures:
            raise failures.pop()
        return get(call_id, direction, max_bytes)

    monkeypatch.setattr(signed.store, "get", get_or_fail)
    with EcsExecutor(signed.queue, store=signed.store) as executor:
        error = executor.submit(add, 1, 1).exception(TIMEOUT)

    assert (error is None) is is_delayed


def test_the_ledger_learns_that_the_caller_has_the_result(
    containers: Containers, executor: EcsExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed: list[str] = []
    monkeypatch.setattr(containers.queue.results, "confirm_later", lambda handle: confirmed.append(handle.id))

    future = executor.submit(add, 1, 1)

    assert future.result(TIMEOUT) == 2
    assert confirmed == [future.handle.id]


def test_a_builtin_function_without_a_signature_gets_its_arguments(executor: EcsExecutor) -> None:
    assert executor.submit(max, 1, 2).result(TIMEOUT) == 2


def test_the_payload_of_a_revoked_call_is_dropped() -> None:
    store = MemoryCallStore()
    with MemoryQueue() as queue, EcsExecutor(queue, store=store) as executor:
        assert executor.submit(add, 1, 1).cancel()

    assert store.payloads == {}


class TestShutdown:
    def test_no_call_is_accepted_after_it_and_the_client_stays_open(self, containers: Containers) -> None:
        executor = EcsExecutor(containers.queue, store=containers.store)
        executor.shutdown()

        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(add, 1, 1)
        assert containers.queue.backlog("default") == 0

    def test_pending_calls_are_cancelled(self) -> None:
        with MemoryQueue() as queue:
            executor = EcsExecutor(queue, store=MemoryCallStore())
            futures = [executor.submit(add, 1, 1) for _ in range(3)]

            executor.shutdown(cancel_futures=True)

            assert all(future.cancelled() for future in futures)
            assert [record.state for record in queue.tasks()] == ["REVOKED"] * 3

    def test_a_call_that_another_thread_submits_meanwhile_is_cancelled_too(self) -> None:
        made: list[EcsExecutor] = []

        class ShuttingDownStore(MemoryCallStore):
            def put(self, call_id: str, direction: Any, payload: bytes, seconds: float) -> None:
                made[0].shutdown(wait=False, cancel_futures=True)

        with MemoryQueue() as queue:
            made.append(EcsExecutor(queue, store=ShuttingDownStore()))

            assert made[0].submit(add, 1, 1).cancelled()

    def test_a_call_that_could_not_be_submitted_holds_up_no_shutdown(self) -> None:
        made: list[EcsExecutor] = []
        pending: list[concurrent.futures.Future[Any]] = []

        class UnavailableStore(MemoryCallStore):
            def put(self, call_id: str, direction: Any, payload: bytes, seconds: float) -> None:
                pending.extend(made[0]._pending)  # as a shutdown in another thread at this moment
                raise LedgerUnavailable("gone")

        with MemoryQueue() as queue:
            made.append(EcsExecutor(queue, store=UnavailableStore()))
            with pytest.raises(LedgerUnavailable):
                made[0].submit(add, 1, 1)

        assert [future.done() for future in pending] == [True]

    def test_one_call_is_cancelled(self) -> None:
        with MemoryQueue() as queue, EcsExecutor(queue, store=MemoryCallStore()) as executor:
            future: concurrent.futures.Future[Any] = executor.submit(add, 1, 1)

            assert future.cancel()

            with pytest.raises(concurrent.futures.CancelledError):
                future.result(0)
