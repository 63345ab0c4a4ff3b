"""`wait`: waits for the ends of requests that were submitted earlier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ecs_queue.cli.ui.awaited_log import print_last_lines_of, result_sentence, wait_with_log
from ecs_queue.cli.ui.awaited_results import print_result, wait_for_all, wait_for_one
from ecs_queue.cli.ui.completion import complete_id
from ecs_queue.cli.ui.durations import POSITIVE_DURATION
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_TIMED_OUT
from ecs_queue.cli.ui.options import SharedOptions, command_options, open_client
from ecs_queue.cli.ui.output import print_json, print_stderr
from ecs_queue.cli.ui.record_view import exit_status_for
from ecs_queue.cli.ui.records import resolve_id, warn_unserved_queues
from ecs_queue.errors import ResultTimeout, UnknownTask, UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue


@click.command(short_help="Wait for requests that were submitted earlier.")
@click.argument("ids", nargs=-1, required=True, shell_complete=complete_id, metavar="ID|TASK-ARN...")
@click.option("--timeout", type=POSITIVE_DURATION, metavar="S", help="How long to wait at most.")
@click.option("--logs", is_flag=True, help="Of one request: print what the container writes, as it comes.")
@command_options
def wait(options: SharedOptions, ids: Sequence[str], timeout: float | None, logs: bool, as_json: bool) -> int:
    """Wait until requests have ended, and print their results, as `submit --wait` does.

    The results stay with the client that submitted the requests: waiting takes none away, any number of processes may
    wait for the same request, and a request that has ended has its result at once. Of several requests a JSON line is
    printed for each as it ends; --json prints it for one, too.

    \b
    Examples:
      ecs-queue wait nightly-etl; echo $?
      ecs-queue wait nightly-etl --logs --timeout 2h
      ecs-queue submit --file tasks.jsonl | xargs ecs-queue wait

    Exit status: for one request its container's own exit code (1 when it has none); for several 0 if every request
    ended as SUCCESS, else 1. 1 when a request is not known. 124 when --timeout is over and 130 after Ctrl-C: the
    requests go on in both cases.
    """
    options.configure_logging()
    if logs and (len(ids) > 1 or as_json):
        raise UsageError("wait: --logs prints the output of one request, and not with --json")
    with open_client(options) as client:
        names = list(dict.fromkeys(resolve_id(client.ledger, name, "nothing was awaited") for name in ids))
        records = client.find_records(names)
        unknown = [name for name, record in zip(names, records, strict=True) if record is None]
        for name in unknown:
            print_stderr(
                f"ecs-queue: no request {name} is known: it was never submitted, or its retention time is over"
            )
        if unknown:
            return EXIT_FAILURE
        warn_unserved_queues(client, {record.queue for record in records if record and record.state == "QUEUED"})
        try:
            return _wait(client, names, timeout, logs, as_json)
        except ResultTimeout as error:
            print_stderr(f"ecs-queue: {error}; {_follow_up_hint(names)}")
            return EXIT_TIMED_OUT
        except KeyboardInterrupt:
            print_stderr(f"ecs-queue: interrupted; {_follow_up_hint(names)}")
            return EXIT_INTERRUPTED
        except UnknownTask as error:  # its record went while it was awaited
            print_stderr(f"ecs-queue: {error}")
            return EXIT_FAILURE


def _wait(client: EcsQueue, names: Sequence[str], timeout: float | None, logs: bool, as_json: bool) -> int:
    handles = [client.handle(name) for name in names]
    if len(handles) > 1:
        return wait_for_all(client, handles, timeout, None)
    (handle,) = handles
    if logs:
        result = wait_with_log(client, handle, timeout)
        print_stderr(f"ecs-queue: {result_sentence(result)}")
    elif as_json:
        result = wait_for_one(client, handle, client.status(handle.id).queue, timeout)
        print_json(result.to_result_line())
    else:
        result = wait_for_one(client, handle, client.status(handle.id).queue, timeout)
        print_result(result)
        print_last_lines_of(client, result)
    return exit_status_for(result.to_result_line())


def _follow_up_hint(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"the request goes on: ecs-queue status {names[0]}, ecs-queue stop {names[0]}"
    return "the requests go on: ecs-queue tasks, ecs-queue stop ID"
