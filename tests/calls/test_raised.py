"""What a function raises, at its caller: its class where its text is the same there, else a description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_queue import EcsExecutor
from ecs_queue.calls.executor import RemoteError
from ecs_queue.errors import UsageError
from tests.calls import functions
from tests.calls.harness import TIMEOUT, Containers


@pytest.mark.parametrize(
    ("what", "text"),
    [("report", r"MissingReportError: report 7 is missing$"), ("service", r"ServiceError: status 503$")],
)
def test_one_whose_text_would_be_another_is_described(executor: EcsExecutor, what: str, text: str) -> None:
    with pytest.raises(RemoteError, match=text):
        executor.submit(functions.fail_to_find, what).result(TIMEOUT)


def test_the_name_of_a_file_is_part_of_it(executor: EcsExecutor) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '/data/x'") as raised:
        executor.submit(functions.fail_to_find, "/data/x").result(TIMEOUT)

    assert raised.value.filename == "/data/x"


def test_with_cloudpickle_it_has_its_arguments_and_members(signed: Containers) -> None:
    with EcsExecutor(signed.queue, store=signed.store, serializer="cloudpickle") as executor:
        missing = executor.submit(functions.fail_to_find, "report").exception(TIMEOUT)
        failed = executor.submit(functions.fail_to_find, "service").exception(TIMEOUT)

    assert isinstance(missing, functions.MissingReportError)
    assert (str(missing), missing.number) == ("report 7 is missing", 7)
    assert isinstance(failed, functions.ServiceError)
    assert str(failed) == "status 503"


@pytest.mark.parametrize("function", [functions.add_later, functions.count_up, functions.count_up_later])
@pytest.mark.parametrize("serializer", ["json", "cloudpickle"])
def test_a_function_that_returns_no_value_is_refused_before_a_container_starts(
    signed: Containers, serializer: Any, function: Callable[..., Any]
) -> None:
    with (
        EcsExecutor(signed.queue, store=signed.store, serializer=serializer) as executor,
        pytest.raises(UsageError, match=f"^{function.__name__}: expected a function that returns a value, found"),
    ):
        executor.submit(function, 1)

    assert not signed.queue.launched
