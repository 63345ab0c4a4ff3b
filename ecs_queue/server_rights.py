"""Recognizes that Redis or Valkey has denied a right or a log-in, and names the right as far as the server says.

The servers' texts differ by version, and a script's denial has no error code of its own.
"""

from __future__ import annotations

import re

import redis.exceptions

from ecs_queue.errors import MissingRight

#: What to do about every missing right.
RIGHTS_ADVICE = "log in as the user that `ecs-queue acl` prints for this, or grant its rights to the user in the URL"

#: What to correct when the ledger's server does not answer.
LEDGER_URL_KEY = "ledger_url (broker_url, if it is not set)"

#: What the servers answer to a client without a log-in, and to one with a wrong one. The first is RESP3's.
_NO_LOGIN = ("HELLO must be called with the client already authenticated", "Authentication required")
_WRONG_LOGIN = ("invalid username-password pair", "called without any password configured")

#: What a server or proxy answers that has RESP2 only: redis-py begins with RESP3's HELLO.
_NO_HELLO = re.compile(r"(?:unknown|unsupported) command\W{1,3}hello", re.I)
#: Words of an error -> what to do; the first that fits. `{key}` is the key of the configuration that has the URL.
_ADVICE = (
    (_WRONG_LOGIN, "correct the user and the password of {key}"),
    (("Hostname mismatch", "IP address mismatch"), "write a name of the server's certificate as the host of {key}"),
    (("certificate has expired",), "renew the server's certificate"),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "name the file of the authority that signed the server's certificate: {key} with ?ssl_ca_certs=FILE",
    ),
    # The scheme has been named where a first connection failed.
    (("Timeout connecting to server", "begin the URL with"), "check {key}, the server, firewalls and security groups"),
    (("WRONG_VERSION_NUMBER", "record layer failure"), "if this port has no TLS, begin {key} with amqp://"),
    (
        ("Protocol error, got",),
        "no Redis or Valkey answers so: correct host and port of {key}, or begin it with rediss:// for TLS",
    ),
)
#: What follows when a file that an option names is not there, or cannot be read. A socket's path has a slash.
_NO_FILE = re.compile(r"(\[Errno|Error) (2|13)(\]| connecting to [^/]*\.) (No such file|Permission denied)")

#: `User u has no permissions to run the 'zadd' command`; Redis 7.0 and older: `this user has ...`.
_COMMAND = re.compile(r"(?:\bUser (?P<user>\S+)|\bthis user) has no permissions to run the '(?P<command>[^']+)'")
#: Redis 7.0 and older, within a script: the command is not named.
_COMMAND_OF_SCRIPT = re.compile(r"can't run this command")
_KEY = re.compile(r"no permissions to access (?:a|one of the) keys?\b|can't access at least one of the keys", re.I)
_CHANNEL = re.compile(r"no permissions to access (?:a|one of the) channels?\b|can't publish", re.I)
#: What redis-py puts before an error within a pipeline. Only the first argument is shown: others may be payloads.
_PIPELINED = re.compile(r"^Command # \d+ \((?P<command>[A-Za-z]+) (?P<key>[\w.:{}-]+)[ )]")


def find_missing_right(
    error: BaseException, server: str, keys: str, advice: str = RIGHTS_ADVICE
) -> MissingRight | None:
    """Return the error to raise when a server has denied a right; None when `error` says something else.

    Args:
        error: What the client library raised, or kombu, which keeps the library's error as the cause.
        server: "ledger", "broker" or "journal".
        keys: The pattern of the keys, one of which it was.
        advice: What to do about it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, redis.exceptions.ResponseError):
            right = _describe(str(cause), keys, is_denial=isinstance(cause, redis.exceptions.NoPermissionError))
            if right:
                return MissingRight(f"the {server}'s server denies {right}; {advice}")
        cause = cause.__cause__
    return None


def describe_failure(text: str, url_key: str) -> str:
    """Return what a server's error says, and what to do about it.

    Args:
        text: The error's text, without a stop at its end.
        url_key: The key of the configuration that has the server's URL.
    """
    if any(words in text for words in _NO_LOGIN):
        return f"the server requires a log-in; give {url_key} the password: redis://:PASSWORD@HOST, or USER:PASSWORD@"
    if _NO_HELLO.search(text):
        return f"{text}; the server, or a proxy before it, has RESP2 only: put the option protocol=2 behind {url_key}"
    if _NO_FILE.match(text):
        return f"{text}; check the files that the ssl_ options of {url_key} name"
    fitting = (advice for words, advice in _ADVICE if any(each in text for each in words))
    return f"{text}; {next(fitting, 'check {key} and the server').format(key=url_key)}"


def _describe(message: str, keys: str, *, is_denial: bool) -> str:
    """The denied right; "" for an error of another kind. `is_denial`: the server's error code says so."""
    found = _COMMAND.search(message)
    if found:
        return f"{_user(found['user'])} the command {found['command'].upper()}"
    if _COMMAND_OF_SCRIPT.search(message):
        return f"{_user(None)} a command that the script calls"
    if _KEY.search(message):
        pipelined = _PIPELINED.search(message)
        named = f" ({pipelined['command']} {pipelined['key']})" if pipelined and ":" in pipelined["key"] else ""
        return f"{_user(None)} a key{named} of {keys}"
    if _CHANNEL.search(message):
        return f"{_user(None)} a channel of {keys}"
    return f"{_user(None)} a right" if is_denial else ""


def _user(name: str | None) -> str:
    return f"user {name}" if name else "its user"
