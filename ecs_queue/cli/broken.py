"""`broken`: lists, shows and drops what the ledger keeps apart because it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ecs_queue.cli.ui.durations import format_ago, format_timestamp
from ecs_queue.cli.ui.exit_status import EXIT_FAILURE
from ecs_queue.cli.ui.options import OrderedGroup, SharedOptions, command_options, open_client, shared_options
from ecs_queue.cli.ui.output import print_facts, print_json, print_stderr, print_stdout, print_table, truncate
from ecs_queue.errors import UsageError

if TYPE_CHECKING:
    from ecs_queue.client.client import EcsQueue
    from ecs_queue.ledger.broken_items import BrokenItem

#: What dropping an item of each kind means, for `broken show`.
_EFFECTS = {
    "record": "deletes the request's record and payload. A task of it that runs is not followed any more, no result is "
    "published, and the id can be used again",
    "dead_letter": "deletes the message",
    "worker": "deletes the heartbeat; the worker sends the next one in two seconds",
    "pause": "resumes the queue; to keep it paused, pause it again",
    "event_fact": "deletes the fact; the next event notes it again",
    "count": "deletes the number and counts the live requests again",
    "key": "deletes what stood there; an empty key has taken its place",
}
_DROP_SENTENCES = {
    "dropped": "dropped",
    "sound": "it can be used again: it was returned, and nothing was deleted",
    "not_listed": "it is not in the list any more; nothing was deleted",
}


@click.group(cls=OrderedGroup, short_help="List and drop what the ledger cannot use.")
@shared_options
def broken() -> None:
    """Work with broken items: records, heartbeats, dead letters and keys of the ledger that cannot be used.

    A field is missing, a number is none, a key holds another type: another program wrote it, or a disk lost it. Such
    an item leaves its index, so that it stops nothing else, and is listed here. Workers check it again, at least every
    hour: what can be used again returns by itself. What cannot stays here until it is dropped.

    \b
    Examples:
      ecs-queue broken list
      ecs-queue broken show record:nightly-etl
      ecs-queue broken drop record:nightly-etl --yes
    """


@broken.command("list", short_help="List the broken items.")
@command_options
def list_broken(options: SharedOptions, as_json: bool) -> None:
    """List the broken items, the oldest first.

    \b
    Examples:
      ecs-queue broken list
      ecs-queue broken list --json | jq -r 'select(.kind == "record") | .name'
    """
    options.configure_logging()
    with open_client(options) as client:
        found, now = client.ledger.list_broken(), client.ledger.now()
    if as_json:
        for item in found:
            print_json(_item_to_dict(item))
    elif found:
        rows = [(display_key(item), format_ago(item.since, now), truncate(item.reason, 90)) for item in found]
        print_table(("key", "since", "reason"), rows)
    else:
        print_stderr("nothing is broken")


@broken.command("show", short_help="Show one broken item.")
@click.argument("key")
@command_options
def show_broken(options: SharedOptions, key: str, as_json: bool) -> int:
    """Show what is known of one broken item, and what dropping it does. Commands and environments are never shown.

    \b
    Examples:
      ecs-queue broken show record:nightly-etl
      ecs-queue broken show worker:host-17 --json

    Exit status: 1 when there is no such item; otherwise as for every command.
    """
    options.configure_logging()
    with open_client(options) as client:
        item = next((item for item in client.ledger.list_broken() if key in (item.key, display_key(item))), None)
        if item is None:
            print_stderr(f"ecs-queue: no broken item {key} is known; `ecs-queue broken list` lists all")
            return EXIT_FAILURE
        facts, now = {**_item_to_dict(item), **_read_record(client, item)}, client.ledger.now()
    facts["drop"] = _EFFECTS.get(item.kind, "deletes it")
    if as_json:
        print_json(facts)
        return 0
    facts["since"] = f"{facts['since']}, {format_ago(item.since, now)}"
    print_facts(facts)
    return 0


@broken.command("drop", short_help="Delete broken items.")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@click.option("--all", "everything", is_flag=True, help="Select all, instead of KEYs.")
@click.option("--yes", is_flag=True, help="Do it; otherwise only show what would be done.")
@command_options
def drop_broken(options: SharedOptions, keys: Sequence[str], everything: bool, yes: bool, as_json: bool) -> int:
    """Delete broken items for good: those of the KEYs, or all.

    Each is checked once more: what can be used again is returned to its index, and never deleted.

    \b
    Examples:
      ecs-queue broken drop record:nightly-etl
      ecs-queue broken drop record:nightly-etl --yes
      ecs-queue broken drop --all --yes

    Exit status: 1 when an item was not deleted; otherwise as for every command.
    """
    options.configure_logging()
    if bool(keys) == everything:
        found = "both" if everything else "neither"
        raise UsageError(f"broken drop: expected keys or --all, found {found}; nothing was done")
    with open_client(options) as client:
        listed = client.ledger.list_broken()
        items = [item for item in listed if everything or item.key in keys or display_key(item) in keys]
        results = (
            [each.value for each in client.ledger.drop_broken(items)] if yes else ["would_be_dropped"] * len(items)
        )
    for item, result in zip(items, results, strict=True):
        if as_json:
            print_json({"key": display_key(item), "result": result})
        else:
            would = f"would be dropped: this {_EFFECTS.get(item.kind, 'deletes it')}"
            print_stdout(f"{display_key(item)}: {_DROP_SENTENCES.get(result, would)}")
    if everything and not items:
        print_stderr("nothing is broken")
    known = {name for item in items for name in (item.key, display_key(item))}
    for key in (unknown := [key for key in keys if key not in known]):
        print_stderr(f"ecs-queue: no broken item {key} is known; `ecs-queue broken list` lists all")
    if items and not yes:
        print_stderr(f"{len(items)} would be dropped; dry run: nothing was done, --yes does it")
    is_incomplete = yes and any(result != "dropped" for result in results)
    return EXIT_FAILURE if unknown or is_incomplete else 0


def display_key(item: BrokenItem) -> str:
    """Return the item's key with every byte that is no UTF-8 as \\udcXX: `broken show` and `drop` take it, too."""
    return item.key.encode(errors="backslashreplace").decode()


def _item_to_dict(item: BrokenItem) -> dict[str, Any]:
    name = item.name.encode(errors="backslashreplace").decode()
    facts = {"key": display_key(item), "kind": item.kind, "name": name, "since": format_timestamp(item.since)}
    return {**facts, "reason": item.reason}


def _read_record(client: EcsQueue, item: BrokenItem) -> dict[str, Any]:
    """What can be read of a record: whose it is, and its task, which may run."""
    if item.kind != "record":
        return {}
    (record,) = client.ledger.get([item.name])
    if record is None:
        return {"queue": None, "owner": None, "task_arn": None}
    return {"queue": record.queue or None, "owner": record.owner or None, "task_arn": record.arn or None}
