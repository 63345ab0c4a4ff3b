"""Every place that reads what others may have written to the server, or to an exported file, is known.

A new one fails the first test until it stands in the table, with what protects it: a test that shows that forged data
has no effect there, or the reason why it has none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import ROOT

#: Functions and methods that return what another process wrote: envelopes, arguments, results, events of the journal.
FUNCTIONS = frozenset(
    {
        *("decode_request", "decode_record_request", "decode_result"),
        *("decode_launch_spec", "try_decode_launch_spec", "launch_spec_header"),
        *("read_events", "newest_envelope", "call_in_event", "read_traffic", "find_past_request"),
    }
)
METHODS = frozenset({"request_events", "all_events", "pages_newest_first", "tail"})
#: What a record says that leads to a call of ECS.
MEMBERS = frozenset({"record.request", "record.args", "record.target"})

FORGED = "tests/security/test_forged_journal.py::"
RECORDS = "tests/worker/test_record_verification.py"
#: Where they are used, and the test that forged data has no effect there; "shows: ..." or "decides nothing: ..." where
#: there is no effect.
PLACES: dict[str, str] = {
    "cli.dead:_request_to_dict": "shows: whether a dead letter could be submitted again",
    "cli.dead_letter_requeue:prepare_requeue": (
        "tests/cli/test_dead.py::test_a_forged_dead_letter_is_not_signed_again"
    ),
    "cli.journal:show": "shows: events, those that are not verified with a mark",
    "cli.journal:import_events": FORGED + "test_an_import_does_not_sign_what_is_not_verified",
    "cli.replay:find_past": FORGED + "test_a_forged_request_is_neither_run_nor_signed",
    "cli.replay_journal:replay_offline": "shows: decisions of a file; nothing is started or written",
    "cli.replay_rules:replay_with_rules": "shows: recorded ends by other rules; nothing is started or written",
    "cli.replay_journal:_read_file": FORGED + "test_forged_traffic_is_not_submitted",
    "cli.ui.timeline_view:read_timeline": "shows: a timeline, with the number of events that are not verified",
    "cli.tasks:_command_text": "shows: the beginning of a command, to who asks for it",
    "client.result_verification:decode_result_keys": "tests/client/test_result_verification.py",
    "journal.selection:select_events": "shows: events to the caller, with whether they are verified",
    "journal.selection:read_newest": "shows: events for `journal tail`, those that are not verified with a mark",
    "journal.selection:follow_events": "shows: events to the caller, with whether they are verified",
    "journal.encoder:EventEncoder._seal": "decides nothing: encrypts what the journal keeps",
    "messages.envelope:decode_record_request": RECORDS,
    "web.reading:read_next_events": "shows: events, those that are not verified with a mark",
    "web.reading:read_request": "shows: a timeline, with the number of events that are not verified",
    "web.reading:_envelope_members": "shows: names of a request's arguments, and values to who has the token",
    "web.reading:_is_in_journal": "shows: a link to the page of a request",
    "replay.past_request:find_past_request": FORGED + "test_a_signed_request_in_the_record_of_another_id_is_refused",
    "replay.past_request:_current_call": FORGED + "test_the_arguments_of_a_forged_launch_do_not_reach_a_live_request",
    "replay.past_request:_last_journaled_call": (
        FORGED + "test_the_arguments_of_a_forged_launch_do_not_reach_a_live_request"
    ),
    "replay.retry:_plan": FORGED + "test_a_forged_request_is_not_retried",
    "replay.sealed:_open_payload": "decides nothing: its callers verify the events",
    "replay.traffic:read_traffic": (FORGED + "test_forged_requests_are_left_out_of_genuine_traffic_and_copies_are_one"),
    "runtask.launch_spec:launch_spec_header": "decides nothing: names of containers, and the number of attempts",
    "runtask.launch_spec:record_args_scope": "decides nothing: what a signature must be for",
    "runtask.launch_spec:try_decode_launch_spec": "decides nothing: its callers stand here",
    "worker.completion:Completion.fail_poison": "tests/cli/test_dead.py::test_a_forged_dead_letter_is_not_signed_again",
    "worker.event_listener:EventListener._evaluate": RECORDS,
    "worker.launch_calls:LaunchCalls.run_task": RECORDS,
    "worker.launch_calls:LaunchCalls._record_task_absent": (
        "tests/cli/test_dead.py::test_a_forged_dead_letter_is_not_signed_again"
    ),
    "worker.launch_calls:LaunchCalls.find_task": RECORDS,
    "worker.launcher:Launcher._handle_claim": RECORDS,
    "worker.launcher:Launcher._prepare_queued": RECORDS,
    "worker.launcher:Launcher._call_frozen": RECORDS,
    "worker.prepared_launch:receive_request": "tests/system/test_secure_deployment.py",
    "worker.reconciler:Reconciler.reconcile": RECORDS,
    "worker.record_verification:RecordVerifier.decode_request": RECORDS,
    "worker.record_verification:RecordVerifier.verify_request": RECORDS,
    "worker.record_verification:RecordVerifier.decode_launch_spec": RECORDS,
    "worker.record_verification:RecordVerifier.encoded_target": RECORDS,
    "worker.run_settler:RunSettler.settle_due": RECORDS,
    "worker.sweeper:Sweeper._submit_due": "decides nothing: the order of launches, by priority",
}


def find_places(path: Path) -> Iterator[str]:
    """The functions of a module that use one of the readers."""
    module = ".".join(path.relative_to(ROOT / "ecs_queue").with_suffix("").parts)

    def visit(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*inside, node.name)
        is_method = isinstance(node, ast.Attribute) and node.attr in (*FUNCTIONS, *METHODS)
        is_function = isinstance(node, ast.Name) and node.id in FUNCTIONS
        if is_method or is_function or (isinstance(node, ast.Attribute) and ast.unparse(node) in MEMBERS):
            yield f"{module}:{'.'.join(inside)}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(path.read_text()), ())


def test_every_reader_of_what_others_wrote_is_in_the_table() -> None:
    pure_rules = ROOT / "ecs_queue" / "protocol"
    modules = [path for path in (ROOT / "ecs_queue").rglob("*.py") if pure_rules not in path.parents]
    found = {place for path in modules for place in find_places(path)}

    assert found == PLACES.keys()


@pytest.mark.parametrize("protection", sorted({text for text in PLACES.values() if ": " not in text}))
def test_the_test_of_each_effect_exists(protection: str) -> None:
    file, _, name = protection.partition("::")
    text = (ROOT / file).read_text()

    assert all(part in text for part in name.split("::"))
