"""No representation of a struct or dataclass shows a payload: every field that is not known as open holds a secret."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import ecs_queue
from tests.security.canaries import CANARY

#: Fields of text, bytes, lists or objects that hold no payload: ids, names, states, reasons, places, options, counts.
OPEN = set(
    re.findall(
        r"\w+",
        """
    _client account addresses advice appendfsync arn arns barrier_error base boot bucket cfg_path channels check choices
    chosen claim closed cluster clusters codes conf config_path confirmed conflicting_arns conn_id container
    container_name concurrency_key
    decision_counts default denied denied_access_key_ids desired_status detail_type digest directories
    directory display doc durability endpoint_url file secret_files read_secret aws_secrets
    error error_code event event_faults event_hashes event_queue_url events help labels buckets counts
    failures fields gateway groups health host id info invalid_reason journal_only key keys kind last_answer
    last_status launch_rate launch_type launches ledger load log_dir log_level log_path mac main member_by_letters
    members message missing_arns monotonic name namespace new_id nonce on_drop operations origin
    other_failures output owner parse path pattern phase phases platform_version pool preload
    previous_owner problem problems profiles protected_roles provision_seconds
    publish_result queue queue_names queues reason record_id redacted redacted_paths refused region
    relaunch request_id request_ids requests required reserve result results rng role_arn rule run section seq service
    run_without_token severity signature source state states stop_cause stop_code stop_requested_by subject tags
    target target_for task_arn task_definition task_id task_instance_id team telemetry time traceparent unreadable
    verify version attributes error_type dead_letters reasons retry_rules ruling action end on_exit_code
    on_reason on_stop_code on_end variant_reason reported
    wait_for_stop worker worker_name writer_id
    """,
    )
)
#: They hold configuration, not payloads; tests/config has the tests of what they show.
REDACTED = {"Config", "Profile"}
#: The text of a finding is made to be shown; elsewhere `text` is a configured value, or an event.
OPEN_HERE = {
    ("Finding", "text"),
    # titles and queries of the dashboard
    *(("Panel", name) for name in ("title", "text", "unit", "options")),
    *(("Query", name) for name in ("expression", "legend")),
    # numbers by queue
    ("NamespaceState", "runners"),
    # names of queues
    ("NamespaceState", "others"),
    # a launch configuration, of names
    *(
        ("CapacityVariant", name)
        for name in ("capacity_provider_strategy", "subnets", "security_groups", "region_name")
    ),
    # names of queues, values of labels and names of capacities
    *((kind, name) for kind in ("TaskUse", "CostRow") for name in ("group", "capacity", "use")),
    ("Price", "capacity"),
    ("CostTotals", "rows"),
    *(("RunnerTime", name) for name in ("busy", "first_group", "begun")),
    # names of hosts and queues, a sentence to show, and an id
    *(("Access", "allowed_hosts"), *(("RequestView", name) for name in ("paused", "note", "retry"))),
    # one of two words
    ("ClientOptions", "http_client"),
    # times, ids, numbers by queue, and what runners do
    ("CountedData", "queued_at"),
    ("ElementSummary", "element"),
    ("MinuteCounts", "waits"),
    *(("WorkerInfo", name) for name in ("launch_rates", "end_rates")),
    *(("Overview", name) for name in ("quota", "runners")),
    ("RunnerRow", "activity"),
    # an id, a nonce and a number
    ("RunEnd", "assignment"),
    # numbers and their titles
    *(("Chart", name) for name in ("title", "top", "half", "text", "series")),
    *(("Series", name) for name in ("style", "values", "lines", "bars")),
    *(("HourView", name) for name in ("charts", "labels", "rows", "begins")),
    # names, as in a configuration
    *(("IamLogin", "user"), ("IamLogin", "cache"), ("IamTarget", "login"), ("IamTarget", "cache")),
}
_NUMBERS = re.compile(r"(int|float|bool|datetime\.datetime|datetime)( \| None)?|Optional|Annotated\[(int|float)")


class Open(str):
    """A value of any open field: it has every attribute and length that a representation may ask for."""

    def __getattr__(self, name: str) -> Open:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def kinds() -> Iterator[type]:
    """The structs and dataclasses of the package; those of the Airflow adapter where Airflow is installed."""
    has_airflow = importlib.util.find_spec("airflow") is not None
    for found in pkgutil.walk_packages(ecs_queue.__path__, "ecs_queue."):
        if found.name.endswith("__main__") or (found.name.startswith("ecs_queue.airflow") and not has_airflow):
            continue
        module = importlib.import_module(found.name)
        for kind in vars(module).values():
            is_own = isinstance(kind, type) and kind.__module__ == found.name and kind.__name__ not in REDACTED
            if is_own and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)):
                yield kind


KINDS = sorted(kinds(), key=lambda kind: f"{kind.__module__}.{kind.__name__}")
_NAMES = "|".join(kind.__name__.lstrip("_") for kind in KINDS)
_OWN_TYPES = re.compile(rf"\b({_NAMES}|\w*(Kind|State|Cause|Code|Write|Channel))\b")


def value_of(kind: type, name: str, annotation: object) -> Any:
    text = annotation if isinstance(annotation, str) else str(getattr(annotation, "__name__", annotation))
    if _NUMBERS.match(text):
        return 1
    is_open = name in OPEN or (kind.__name__, name) in OPEN_HERE
    return Open("open") if is_open or _OWN_TYPES.search(str(annotation)) else CANARY


def build(kind: type) -> object:
    """An instance with a secret in every field that is not open; no check of its own is run."""
    if issubclass(kind, msgspec.Struct):
        infos = msgspec.structs.fields(kind)
        return kind(**{info.name: value_of(kind, info.name, info.type) for info in infos})
    made = object.__new__(kind)
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        object.__setattr__(made, item.name, value_of(kind, item.name, item.type))
    return made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_no_representation_shows_a_payload(kind: type) -> None:
    made = build(kind)
    for text in (repr(made), str(made), f"{made}", repr([made])):
        assert CANARY not in text, text


def test_the_types_that_hold_payloads_are_among_them() -> None:
    names = {kind.__name__ for kind in KINDS}
    assert {"TaskRequest", "LaunchSpec", "DeadLetter", "EcsQueuedTask", "SharedOptions", "RawValue"} <= names
