"""`web`: shows the namespace in a browser."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.dead_letter_requeue import (
    DeadLetterFilter,
    build_requeue_id,
    find_dead_letters,
    prepare_requeue,
    request_id_in,
    submit_requeues,
)
from ecs_queue.cli.ui.durations import format_duration, format_timestamp_ms
from ecs_queue.cli.ui.event_view import format_event_fields
from ecs_queue.cli.ui.numbers import count
from ecs_queue.cli.ui.options import SharedOptions, load_shared_config, pass_options, shared_options
from ecs_queue.cli.ui.output import print_stderr
from ecs_queue.cli.ui.record_view import record_lines
from ecs_queue.cli.ui.records import find_reached_limit
from ecs_queue.error_text import error_text
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.protocol.record import Record
    from ecs_queue.web.actions import Commands
    from ecs_queue.web.presentation import Presentation

_MIN_TOKEN_LENGTH = 16
#: How long a page waits for the last lines of a container. Seconds.
_LOG_SECONDS = 3.0
#: For the answers under way at the end. Seconds.
_STOP_SECONDS = 2


@click.command(short_help="Show all of it in a browser.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=count(0, 65535), default=8480, show_default=True, help="Port to listen on.")
@click.option(
    "--allowed-host", "allowed_hosts", multiple=True, metavar="NAME", help="Name in the browser's address; repeatable."
)
@click.option("--token-file", metavar="PATH", help="File with the token for the log-in.  [a new token each time]")
@click.option("--allow-changes", is_flag=True, help="Who is logged in may stop, replay, requeue, pause, resume, drain.")
@shared_options
@pass_options
def web(
    options: SharedOptions,
    host: str,
    port: int,
    allowed_hosts: Sequence[str],
    token_file: str | None,
    allow_changes: bool,
) -> None:
    """Show the namespace in a browser: problems, queues, workers, requests, dead letters and the journal.

    The page changes nothing without --allow-changes. It listens on this machine only; with --host of another one, each
    look needs the token. The address with the token is printed to stderr: arguments and container output are shown only
    after that log-in.

    \b
    Examples:
      ecs-queue web
      ecs-queue web --port 9000
      ecs-queue web --host 0.0.0.0 --allowed-host queue.example.com --token-file /run/secrets/web-token
    """
    try:
        import uvicorn

        from ecs_queue.web.app import WebApp
    except ImportError as error:
        raise UsageError(f"web needs the package {error.name}: pip install 'ecs-queue[web]'") from None
    from ecs_queue.broker import open_broker
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.journal import open_journal_store
    from ecs_queue.ledger import open_ledger
    from ecs_queue.web.access import Access, parse_allowed_host

    options.configure_logging()
    names = [parse_allowed_host(name) for name in allowed_hosts]
    config = load_shared_config(options)
    token = _read_token(token_file) if token_file else secrets.token_urlsafe(32)
    access = Access(token=token, host=host, allowed_hosts=frozenset(names), allow_changes=allow_changes)
    broker = open_broker(config)
    with EcsQueue(config, broker, open_ledger(config), owner="", journal=open_journal_store(config)) as client:
        app = WebApp(client, broker, access, make_presentation(), make_commands())
        with _listen(host, port) as listener:
            name = names[0] if names else host
            shown = f"[{name}]" if ":" in name else name
            address = f"http://{shown}:{listener.getsockname()[1]}/"
            print_stderr(f"ecs-queue: {address}" + ("" if token_file else f"login?token={token}"))
            # No log of requests: the address of a log-in has the token.
            quiet: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
            settings = uvicorn.Config(app.build(), timeout_graceful_shutdown=_STOP_SECONDS, **quiet)
            server = uvicorn.Server(settings)
            app.streams.end_when(lambda: server.should_exit)
            server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket before the address is printed: port 0 takes a free one."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"web: cannot listen on {host}:{port}: {error_text(error)}; choose another --port") from None
    # Connections inherit it. asyncio sets it only for sockets that it made; without it each page comes 40 ms later.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def make_presentation() -> Presentation:
    """Return how the command line shows facts, for the page."""
    from ecs_queue.replay.retry import build_retry_id
    from ecs_queue.web.presentation import Presentation

    return Presentation(
        duration=format_duration,
        timestamp=format_timestamp_ms,
        record_fields=_record_fields,
        event_fields=format_event_fields,
        last_lines=_last_lines,
        argument_diff=_argument_diff,
        dead_letter_id=request_id_in,
        retry_id=build_retry_id,
    )


def _record_fields(client: EcsQueue, record: Record, now: float, paused: Mapping[str, float]) -> list[tuple[str, str]]:
    """As `status` shows them."""
    return record_lines(record, now, paused, find_reached_limit(client, record))


def make_commands() -> Commands:
    """Return what the command line does, for the page."""
    from ecs_queue.cli.pools import drain_queue
    from ecs_queue.web.actions import Commands

    return Commands(replay=_replay, requeue=_requeue, requeue_id=build_requeue_id, drain=drain_queue)


def _replay(client: EcsQueue, record_id: str, suffix: str) -> str:
    from ecs_queue.cli.replay import find_past, submit_again
    from ecs_queue.runtask.resubmit import ResubmitChanges, build_resubmit_id

    new_id = build_resubmit_id(record_id, suffix)
    return submit_again(client, find_past(client, record_id), ResubmitChanges(), new_id).id


def _requeue(client: EcsQueue, key: str) -> str:
    found = find_dead_letters(client.ledger, DeadLetterFilter(keys=(key,)))
    (requeue,) = submit_requeues(client, [prepare_requeue(client, letter, None) for letter in found])
    if requeue.prepared_request is None:
        raise UsageError(f"{key} stays a dead letter: {requeue.problem}")
    return requeue.prepared_request.request.id


def _last_lines(client: EcsQueue, record: Record, limit: int) -> Sequence[str] | str:
    from ecs_queue.cli.ui.container_log import read_last_lines
    from ecs_queue.cli.ui.log_view import terminal_lines

    if not record.arn:
        return ()
    found = read_last_lines(client, record, limit, _LOG_SECONDS)
    return found if isinstance(found, str) else [part for line in found for part in terminal_lines(line.text)]


def _argument_diff(client: EcsQueue, record_id: str) -> Sequence[str] | str:
    from ecs_queue.cli.replay import find_past
    from ecs_queue.cli.replay_explain import compare_launch, diff_lines
    from ecs_queue.runtask.resubmit import ResubmitChanges

    past = find_past(client, record_id, trust_unsigned=True)  # it is only shown
    comparison = compare_launch(client.config, past, ResubmitChanges(), reveal=False)
    if comparison.previous is None:
        return "It was never launched, or the journal does not know any more what was sent."
    if comparison.is_identical:
        return f"The same would be sent now as in launch {comparison.launch}."
    return list(diff_lines(comparison))


def _read_token(path: str) -> str:
    from ecs_queue.config.commands import read_value_file

    token = read_value_file(path)
    if len(token) < _MIN_TOKEN_LENGTH:
        raise UsageError(f"--token-file {path}: expected at least {_MIN_TOKEN_LENGTH} characters, found {len(token)}")
    return token
