"""Runs the commands of `KEY_CMD` variables and `KEY_cmd` keys, and reads the files of `KEY_FILE` and `KEY_file`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from ecs_queue.errors import ConfigError
from ecs_queue.named_file import read_named_file

#: How long a command may run, in seconds.
COMMAND_TIMEOUT_SECONDS = 30.0


#: A longer file is not what was meant.
_MAX_FILE_BYTES = 64 * 1024


def read_value_file(path: str) -> str:
    """Return the text of a file, without white space around it.

    Raises:
        ConfigError: it cannot be read, is empty, or is no text. Nothing of it is shown.
    """
    expected = "a file with the value"
    if not path:
        raise ConfigError(f"expected the path of {expected}, found none")
    try:
        content = read_named_file(Path(path).expanduser(), _MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"expected {expected}, found {path!r}: {error.strerror}") from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise ConfigError(f"expected {expected}, found {path!r} without UTF-8 text") from None
    if not text:
        raise ConfigError(f"expected {expected}, found {path!r}, which is empty")
    return text


def run_command(command: str, timeout: float = COMMAND_TIMEOUT_SECONDS) -> str:
    """Return what a command prints, without a shell, as Airflow does.

    Raises:
        ConfigError: it cannot be run, fails, prints nothing, or runs too long. Neither the command nor what it printed
            is shown, because both may contain a secret.
    """
    expected = "a command that prints the value"
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "text that is no command"
        raise ConfigError(f"expected {expected}, found one that cannot be run: {reason}") from None
    with process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise ConfigError(f"expected {expected}, found one that ran longer than {timeout:g} s") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # its children too: they would keep the pipe open
    if process.returncode:
        raise ConfigError(f"expected {expected}, found one that failed with exit code {process.returncode}")
    text = output.decode(errors="ignore").strip()
    if not text:
        raise ConfigError(f"expected {expected}, found one that printed nothing")
    return text
