"""What every command says of a name that no queue can have."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from ecs_queue.cli.main import cli
from tests.cli.conftest import Invoke

#: It has its own list of names, separated by commas.
_LISTED = ("worker", "queues")


@pytest.mark.parametrize(
    "arguments",
    [
        ("purge", "NAME"),
        ("purge", "NAME", "--yes"),
        ("queues", "pause", "etl", "NAME"),
        ("queues", "resume", "NAME"),
        ("pools", "drain", "NAME"),
        ("runner-key", "NAME"),
        ("tasks", "--queue", "NAME"),
        ("stop", "--queue", "NAME", "--yes"),
        ("retry", "--state", "failed", "--queue", "NAME"),
        ("dead", "list", "--queue", "NAME"),
        ("dead", "requeue", "--all", "--to", "NAME"),
        ("dead", "purge", "--queue", "NAME"),
        ("scale", "--queue", "NAME"),
        ("doctor", "--queue", "NAME"),
        ("replay", "id", "--explain", "--queue", "NAME"),
        ("submit", "--queue", "NAME", "--", "true"),
        ("worker", "--queues", "etl,NAME"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("name", ["bad name!", "x" * 65], ids=["characters", "length"])
def test_a_name_that_no_queue_can_have_is_refused_with_what_a_name_may_have(
    invoke: Invoke, arguments: tuple[str, ...], name: str
) -> None:
    """No server is there: the name is refused before a connection is opened."""
    done = invoke(*(part.replace("NAME", name) for part in arguments))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "1 to 64 of A-Z a-z 0-9 _ . -, found" in done.stderr
    assert repr(name) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_name_is_none() -> None:
    queue = next(parameter for parameter in cli.commands["tasks"].params if parameter.name == "queue")
    with pytest.raises(click.BadParameter, match="found ''"):
        queue.type_cast_value(click.Context(cli), "")


def _parameters(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    for parameter in command.params:
        yield (*path, str(parameter.name)), parameter
    for name, inner in getattr(command, "commands", {}).items():
        yield from _parameters(inner, (*path, name))


def test_every_parameter_that_is_a_queue_checks_its_name() -> None:
    context, unchecked, checked = click.Context(cli), [], 0
    for path, parameter in _parameters(cli):
        metavar = str(getattr(parameter, "metavar", None) or "")
        if path[-1] not in ("queue", "queues") and metavar not in ("QUEUE", "QUEUE..."):
            continue
        try:
            parameter.type.convert("bad name!", parameter, context)
        except click.BadParameter:
            checked += 1
        else:
            unchecked.append(path)
    assert unchecked == [_LISTED]
    assert checked > 10
