"""Which right a server has denied, from the texts of its versions."""

from __future__ import annotations

import pytest
import redis
from kombu.exceptions import OperationalError

from ecs_queue.server_rights import RIGHTS_ADVICE, describe_failure, find_missing_right

_NOPERM = redis.exceptions.NoPermissionError
_ANY_KEY = "its user a key of {ns}:l:*"
_SETNAME = "its user the command CLIENT|SETNAME"
_SCRIPT = redis.exceptions.ResponseError  # a denial within a script has no error code of its own


@pytest.mark.parametrize(
    ("error", "right"),
    [
        (_NOPERM("User u has no permissions to run the 'zadd' command"), "user u the command ZADD"),
        (
            _NOPERM("this user has no permissions to run the 'client|setname' command"),
            "its user the command CLIENT|SETNAME",
        ),
        (
            _NOPERM("this user has no permissions to run the 'info' command or its subcom"),
            "its user the command INFO",
        ),
        (_NOPERM("No permissions to access a key"), _ANY_KEY),
        (
            _NOPERM("Command # 1 (HGETALL {ns}:l:r:a) of pipeline caused error: No permissions to access a key"),
            "its user a key (HGETALL {ns}:l:r:a) of {ns}:l:*",
        ),
        (
            _NOPERM(
                "Command # 2 (EVALSHA 0123abcd 0 put secret) of pipeline caused error: "
                "this user has no permissions to access one of the keys used as arguments"
            ),
            _ANY_KEY,
        ),
        (_NOPERM("No permissions to access a channel"), "its user a channel of {ns}:l:*"),
        (_NOPERM("words of a later version"), "its user a right"),
        (
            _SCRIPT("ACL failure in script: User u has no permissions to run the 'zadd' command"),
            "user u the command ZADD",
        ),
        (
            _SCRIPT("ACL failure in script: No permissions to access a key"),
            _ANY_KEY,
        ),
        (
            _SCRIPT("The user executing the script can't access at least one of the keys mentioned in the command"),
            _ANY_KEY,
        ),
        (
            _SCRIPT("The user executing the script can't run this command or subcommand"),
            "its user a command that the script calls",
        ),
    ],
)
def test_a_denied_right_is_named_as_far_as_the_server_says(error: Exception, right: str) -> None:
    found = find_missing_right(error, "ledger", "{ns}:l:*")
    assert str(found) == f"the ledger's server denies {right}; {RIGHTS_ADVICE}"


def test_a_denial_that_kombu_has_wrapped_is_found() -> None:
    outer = OperationalError("User u has no permissions to run the 'ping' command")
    outer.__cause__ = _NOPERM("User u has no permissions to run the 'ping' command")
    assert "the broker's server denies user u the command PING" in str(find_missing_right(outer, "broker", "keys"))


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused."),
        redis.exceptions.AuthenticationError("invalid username-password pair or user is disabled."),
        redis.exceptions.ResponseError("unknown command 'WAITAOF'"),
        OSError("no permissions to access a key"),
    ],
)
def test_every_other_error_is_no_missing_right(error: Exception) -> None:
    assert find_missing_right(error, "ledger", "{ns}:l:*") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed",
            "ca_certs=",
        ),
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch",
            "name of the server's certificate",
        ),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", "renew"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "begin broker_url with amqp://"),
        ("Timeout connecting to server", "security groups"),
        ("Error 1 connecting to h:1; if the server has TLS, begin the URL with rediss://", "security groups"),
        ('Protocol error, got "A" as reply type byte', "no Redis or Valkey answers so"),
        ("Error 2 connecting to 127.0.0.1:6379. No such file or directory", "the files that the ssl_ options"),
        ("[Errno 13] Permission denied", "the files that the ssl_ options"),
        ("Error 2 connecting to /run/valkey.sock. No such file or directory", "; check broker_url and the server"),
        ("Error 111 connecting to h:1. Connection refused", "; check broker_url and the server"),
    ],
)
def test_a_failure_is_followed_by_what_to_correct(text: str, words: str) -> None:
    described = describe_failure(text, "broker_url")
    assert described.startswith(f"{text}; ")
    assert words in described
    assert "broker_url" in described or "renew" in described
