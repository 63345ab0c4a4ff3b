"""What the caller and the container of a function call write for each other. No I/O.

A payload is `v1:MAC:FLAG:BODY`. BODY is the JSON of a `Call` or a `Reply`; FLAG is `e` where it is encrypted. MAC is
made with the key that `ecs-queue runner-key QUEUE` prints, and covers what the payload belongs to, so that one of
another call or direction is refused; without keys it is empty. Nothing is decoded before the MAC is verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from inspect import Parameter, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from itertools import chain, repeat
from typing import Any, Literal, get_type_hints

import msgspec

from ecs_queue.error_text import error_text
from ecs_queue.errors import UndecodableMessage, UsageError
from ecs_queue.runs.runner_key import RunnerKeys

Serializer = Literal["json", "cloudpickle"]
Direction = Literal["in", "out"]

_VERSION = b"v1"
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class CallOptions(msgspec.Struct, frozen=True):
    """What the caller hands to the container: which call it is, where its payload is, and how large a value may be."""

    id: str
    namespace: str
    queue: str
    serializer: Serializer
    max_bytes: int
    s3: str = ""

    def __repr__(self) -> str:
        """Return which call it is."""
        return f"CallOptions(id={self.id!r}, queue={self.queue!r})"

    def place(self, direction: Direction) -> tuple[str, ...]:
        """Return what a payload belongs to."""
        return ("call", self.namespace, self.queue, self.id, direction, self.serializer)


class Call(msgspec.Struct, frozen=True):
    """A call: the function's module and name, and its encoded arguments; with cloudpickle everything is in `value`."""

    value: bytes
    module: str = ""
    name: str = ""

    def __repr__(self) -> str:
        """Return no part of it: it is a payload."""
        return "Call(...)"


class Reply(msgspec.Struct, frozen=True):
    """What a call returned, or what it raised: the exception's class, its arguments or its text, and the traceback."""

    value: bytes = b""
    raised: str = ""
    text: str = ""
    traceback: str = ""

    def __repr__(self) -> str:
        """Return no part of it: it is a payload."""
        return "Reply(...)"


def seal(
    message: Call | Reply, options: CallOptions, direction: Direction, keys: RunnerKeys, *, encrypts: bool
) -> bytes:
    """Return the payload with the message."""
    body = msgspec.json.encode(message)
    flag = b"e" if encrypts else b"p"
    if encrypts:
        body = keys.encrypt(body)
    mac = keys.make_mac(options.place(direction), flag + body)
    return b":".join((_VERSION, mac.encode().replace(b":", b"."), flag, body))


def open_call(payload: bytes, options: CallOptions, keys: RunnerKeys) -> tuple[Call, bool]:
    """Return the call in a payload, and whether it was encrypted; raises as `open_reply` does."""
    return _open(payload, options, "in", keys, Call)


def open_reply(payload: bytes, options: CallOptions, keys: RunnerKeys) -> Reply:
    """Return the reply in a payload.

    Raises:
        UnverifiedMessage: It is unsigned, was changed, or belongs to another call.
        SealedMessage: None of the keys is the one that it was made with.
        UndecodableMessage: It is no payload, or of another version.
    """
    reply: Reply = _open(payload, options, "out", keys, Reply)[0]
    return reply


def _open(
    payload: bytes, options: CallOptions, direction: Direction, keys: RunnerKeys, kind: type[Any]
) -> tuple[Any, bool]:
    parts = payload.split(b":", 3)
    if len(parts) != 4 or parts[0] != _VERSION:
        raise UndecodableMessage("the payload of the call is not of version 1: use one version of ecs-queue")
    _, mac, flag, body = parts
    keys.check_mac(options.place(direction), flag + body, mac.decode("ascii", "replace").replace(".", ":"))
    is_encrypted = flag == b"e"
    try:
        return msgspec.json.decode(keys.decrypt(body) if is_encrypted else body, type=kind), is_encrypted
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise UndecodableMessage("the payload of the call cannot be read") from None


def encode_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], serializer: Serializer
) -> Call:
    """Return the call of a function.

    Raises:
        UsageError: The container could not import the function, the function returns no value that can be sent, or the
            arguments cannot be written.
    """
    if iscoroutinefunction(function) or isasyncgenfunction(function) or isgeneratorfunction(function):
        raise UsageError(
            f"{function.__qualname__}: expected a function that returns a value, found an async function or a "
            "generator; call it in a function of its own, with asyncio.run or list"
        )
    if serializer == "cloudpickle":
        return Call(_cloudpickle().dumps((function, args, kwargs)))
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name.isidentifier():
        raise UsageError(
            f"{module}.{name}: expected a function at the top level of a module that the container can import, found "
            "another one; move it there, or choose serializer='cloudpickle'"
        )
    return Call(_encode_json((args, kwargs), f"the arguments of {module}.{name}"), module, name)


def encode_value(value: Any, serializer: Serializer) -> bytes:
    """Return what the function returned, encoded; UsageError when it cannot be written."""
    if serializer == "cloudpickle":
        return bytes(_cloudpickle().dumps(value))
    return _encode_json(value, "the value that the function returned")


def encode_error(error: BaseException, serializer: Serializer) -> bytes:
    """Return what `decode_error` makes the exception of again.

    Raises:
        Exception: It cannot be made again, whatever its class raises in the attempt.
    """
    if serializer == "cloudpickle":
        return bytes(_cloudpickle().dumps((error, error.args)))
    made = error.__reduce__()  # the arguments of an OSError have its file's name only here
    args = made[1] if isinstance(made, tuple) and made[0] is type(error) else error.args
    if text_of(type(error)(*args)) != text_of(error):
        raise ValueError("the constructor changes its arguments, or the text depends on others")
    return encode_value(list(args), serializer)


def decode_error(value: bytes, kind: type[Exception] | None, serializer: Serializer) -> BaseException | None:
    """Return the exception that was encoded; None without its class (`kind`). Raises whatever the class raises."""
    if serializer == "cloudpickle":
        error: BaseException
        error, error.args = _cloudpickle().loads(value)  # the constructor may have changed its arguments
        return error
    return None if kind is None else kind(*msgspec.json.decode(value))


def text_of(error: BaseException) -> str:
    """Return the text of an exception, as JSON can have it: a file's name may hold half of a pair."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # noqa: BLE001 - its text is made by the function's module
        return "its text cannot be made"


def decode_arguments(call: Call, function: Callable[..., Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call in JSON, converted to the types that the function declares."""
    args, kwargs = msgspec.json.decode(call.value)
    hints = _hints(function)
    parameters = _parameters(function)
    names = [name for name, one in parameters.items() if one.kind in _BY_POSITION]
    variable = {one.kind: name for name, one in parameters.items()}  # there is one of *args and of **kwargs at most
    others, named_others = variable.get(Parameter.VAR_POSITIONAL, ""), variable.get(Parameter.VAR_KEYWORD, "")
    by_name = {name for name, one in parameters.items() if one.kind in _BY_NAME}
    positions = chain(names, repeat(others))
    return (
        tuple(
            _convert(value, hints.get(name, Any), f"the argument {name}")
            for value, name in zip(args, positions, strict=False)
        ),
        {
            name: _convert(value, hints.get(name if name in by_name else named_others, Any), f"the argument {name}")
            for name, value in kwargs.items()
        },
    )


def decode_value(value: bytes, function: Callable[..., Any], serializer: Serializer) -> Any:
    """Return the value of a reply that was verified; JSON is converted to the type that the function declares."""
    if serializer == "cloudpickle":
        return _cloudpickle().loads(value)
    return _convert(msgspec.json.decode(value), _hints(function).get("return", Any), "the value")


def load_pickled_call(call: Call) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """Return the function and the arguments of a verified call."""
    loaded: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = _cloudpickle().loads(call.value)
    return loaded


def _encode_json(value: Any, what: str) -> bytes:
    try:
        encoded = msgspec.json.encode(value)
        if b"null" in encoded:  # NaN and infinity become it, and would silently arrive as None
            json.dumps(msgspec.to_builtins(value, str_keys=True), allow_nan=False)
        return encoded
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise UsageError(
            f"{what} cannot be written as JSON: expected finite numbers, texts, lists, dicts, dataclasses and the "
            "like; or choose serializer='cloudpickle'"
        ) from None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # a name that exists only for the type checker
        return {}


def _parameters(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    try:
        return signature(function).parameters
    except ValueError:  # a builtin without a signature: its arguments stay as JSON has them
        return {}


def _convert(value: Any, kind: Any, what: str) -> Any:
    try:
        return msgspec.convert(value, kind, str_keys=True)  # the keys of JSON's objects are texts
    except msgspec.ValidationError as error:
        raise UsageError(f"{what} is not what the function declares: {error_text(error)}") from None
    except TypeError:  # msgspec knows no such type: the value stays as JSON has it
        return value


def _cloudpickle() -> Any:
    try:
        import cloudpickle
    except ImportError:
        raise UsageError("serializer='cloudpickle' needs the package cloudpickle: pip install cloudpickle") from None
    return cloudpickle
