"""Starts a runner in its container: configuration from the environment, and the duties of a first process."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Mapping

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import ConfigError, EcsQueueError
from ecs_queue.runner.decisions import FIRST_CONTACT_SECONDS
from ecs_queue.runner.fork_server import ForkServer, NewProcesses
from ecs_queue.runner.loop import STOP_SIGNALS, Identity, Runner, Starter, log_message
from ecs_queue.runner.processes import adopt_orphans, container_environment, hide_memory, keep_descriptors, open_streams
from ecs_queue.runner.server import RedisServerLink
from ecs_queue.runner.task_metadata import VARIABLE as METADATA_VARIABLE
from ecs_queue.runner.task_metadata import read_task_arn
from ecs_queue.runs.runner_key import RunnerKeys
from ecs_queue.runs.runner_options import KEY_VARIABLE, OPTIONS_VARIABLE, URL_VARIABLE, RunnerOptions
from ecs_queue.server_url import ServerUrl, parse_server_url

EXIT_UNUSABLE = 2


def read_options(environ: Mapping[str, str]) -> RunnerOptions:
    """Return what the launcher passed to this runner.

    Raises:
        ConfigError: It is missing, or cannot be decoded.
    """
    try:
        return msgspec.json.decode(environ[OPTIONS_VARIABLE], type=RunnerOptions)
    except KeyError:
        raise ConfigError(
            f"{OPTIONS_VARIABLE} is not set: only a worker of ecs-queue starts this command, as the container of a "
            "queue with warm_seconds (docs/warm-pools.md)"
        ) from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{OPTIONS_VARIABLE}: {error_text(error)}: update ecs-queue in the image") from None


def read_keys(environ: Mapping[str, str]) -> RunnerKeys:
    """Return the keys of the runner's queue. ConfigError when one is none."""
    return RunnerKeys([key for key in environ.get(KEY_VARIABLE, "").split(",") if key.strip()])


def read_url(environ: Mapping[str, str]) -> ServerUrl:
    """Return where the server is. ConfigError, which does not show the URL, when it cannot be used."""
    url = environ.get(URL_VARIABLE, "")
    if not url:
        raise ConfigError(f"{URL_VARIABLE} is not set: give it to the task definition as a secret")
    try:
        return parse_server_url(url)
    except ConfigError as error:
        raise ConfigError(
            f"{URL_VARIABLE} is no usable URL (it is not shown, it may hold a password): {error}"
        ) from None


def main() -> int:
    """Run until there is nothing more to do; return the exit status."""
    open_streams()
    for number in STOP_SIGNALS:
        # Until the loop has its own: the first process of a container ignores what it does not handle.
        signal.signal(number, lambda *_: os._exit(128 + signal.SIGTERM))
    try:
        return _run(os.environ)
    except EcsQueueError as error:
        log_message(str(error))
        return EXIT_UNUSABLE


def _run(environ: Mapping[str, str]) -> int:
    options = read_options(environ)
    keys = read_keys(environ)
    url = read_url(environ)
    environment = container_environment(environ)
    keep_descriptors()
    hide_memory()
    starter = _make_starter(options, environment, adopts_orphans=adopt_orphans())
    identity = Identity(
        arn=read_task_arn(environ.get(METADATA_VARIABLE, ""), FIRST_CONTACT_SECONDS), boot=secrets.token_hex(16)
    )
    return Runner(options, identity, keys, lambda: RedisServerLink(url, options), starter, environment).run()


def _make_starter(options: RunnerOptions, environment: Mapping[str, str], *, adopts_orphans: bool) -> Starter:
    if options.preload and not adopts_orphans:
        log_message("runner_preload: nothing is preloaded, because this system is not Linux")
    if not options.preload or not adopts_orphans:
        return NewProcesses()
    return ForkServer(options.preload, environment, log_message)


if __name__ == "__main__":
    sys.exit(main())
