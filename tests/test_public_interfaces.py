"""The package uses kombu, redis-py, boto3 and botocore through their public interfaces only.

A library may change a name that begins with an underscore in any release. Syntax does not tell the type of an object,
so the rule is about names: an attribute that begins with an underscore is read, called or replaced on `self` or `cls`
only; in a module that imports none of the libraries also where the module defines the name itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ecs_queue"
LIBRARIES = {"kombu", "redis", "boto3", "botocore"}
#: kombu.transport.virtual's documented hooks of a subclass of its Channel. No subclass is needed today.
HOOKS = {"_get", "_put", "_size", "_purge", "_delete", "_new_queue", "_has_queue", "_poll"}
#: A documented function.
OF_OTHERS = {"os._exit"}
#: A documented method of every named tuple.
OF_NAMED_TUPLES = {"_replace"}
ATTRIBUTE_FUNCTIONS = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def defined_names(tree: ast.AST) -> set[str]:
    """The names that a module defines: functions, classes, variables, slots and attributes of its own objects."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def imported_libraries(tree: ast.AST) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.split(".")[0] for name in modules} & LIBRARIES


def private_uses(tree: ast.Module) -> Iterator[str]:
    """Yield what is used of other modules' objects, with its line."""
    own = set() if imported_libraries(tree) else defined_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            is_own = is_self(node.value) or (node.attr in own and not is_super(node.value))
            if not is_own and ast.unparse(node) not in OF_OTHERS and node.attr not in OF_NAMED_TUPLES:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARIES:
            imported = [alias.name for alias in node.names] + (node.module or "").split(".")
            yield from (f"line {node.lineno}: import of {name}" for name in imported if is_private(name))
        elif isinstance(node, ast.Call):
            yield from (f"line {node.lineno}: {name!r} in {ast.unparse(node.func)}" for name in named_attributes(node))


def is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def named_attributes(call: ast.Call) -> Iterator[str]:
    """Yield private names that are given as texts to getattr and its like."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if function in ATTRIBUTE_FUNCTIONS:
        for argument in call.args:
            if isinstance(argument, ast.Constant) and is_private(argument.value):
                yield str(argument.value)


def library_subclasses(tree: ast.Module) -> Iterator[ast.ClassDef]:
    """Yield the classes whose bases come from a library, as far as their names show it."""
    from_library = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).split(".")[0] in LIBRARIES
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            roots = {ast.unparse(base).split(".")[0] for base in node.bases}
            if roots & from_library:
                yield node


def replaced_names(tree: ast.Module) -> Iterator[str]:
    """Yield the private methods that a subclass of a library's class defines and that are no documented hooks."""
    for node in library_subclasses(tree):
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and is_private(member.name) and member.name not in HOOKS:
                yield f"line {member.lineno}: {node.name}.{member.name}"


def test_no_module_uses_a_private_name_of_another() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    assert len(trees) > 100
    found = {path.relative_to(PACKAGE): [*private_uses(tree), *replaced_names(tree)] for path, tree in trees.items()}
    assert {path: uses for path, uses in found.items() if uses} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import kombu\nchannel._size('q')",
        "import kombu\ndef _deliver(): ...\nconnection.transport._deliver = _deliver",
        "from kombu.transport import virtual\nvirtual.QoS._flush",
        "client._execute_command('PING')",
        "message._state = 'ACK'",
        "getattr(channel, '_create_client', None)",
        "setattr(message, '_state', 'ACK')",
        "import boto3\nboto3.Session()._session.create_client('sts')",
        "import botocore.session\nsession._credentials = None",
        "from botocore.credentials import CredentialProvider\nclass P(CredentialProvider):\n    def _load(self): ...",
        "from redis._parsers import Encoder",
        "from redis import _compat",
        "from kombu.transport import virtual\nclass Channel(virtual.Channel):\n    def _restore(self): ...",
        "from kombu.transport.virtual import Channel as C\nclass Channel(C):\n    def f(self): super()._lookup()",
    ],
)
def test_each_way_to_use_a_private_name_is_found(source: str) -> None:
    tree = ast.parse(source)
    assert [*private_uses(tree), *replaced_names(tree)]


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def f(self, other): return self._x + other._x\n    _x = 1",
        "import kombu\nclass A:\n    def f(self): return self._connection.release()",
        "from kombu.transport import virtual\nclass Channel(virtual.Channel):\n    def _put(self, queue, message): ...",
        "import os\nos._exit(1)",
    ],
)
def test_own_names_and_documented_hooks_are_allowed(source: str) -> None:
    tree = ast.parse(source)
    assert [*private_uses(tree), *replaced_names(tree)] == []
