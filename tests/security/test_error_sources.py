"""Every text of an error that is not of this package comes from `ecs_queue.error_text`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ecs_queue.errors

PACKAGE = Path(ecs_queue.errors.__file__).parent
TREES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
#: The functions that may be given an error of a library: they show nothing of it but its type, or use `error_text`.
READERS = {
    *("error_text", "typed_error_text", "traceback_text", "report_failure", "type", "isinstance", "getattr"),
    *(
        "find_missing_right",
        "is_wrong_type",
        "classify_exception",
        "classify_read_error",
        "classify_stop_error",
        "is_access_denied",
        "suspect",
    ),
    *(
        "_describe_parse_error",
        "_report_error",
        "_start_failure_reason",
        "set_exception",
        "_fail_all",
        "_describe_raised",
        "wrap_error",
        "explain_aws_error",
        "is_not_found",
        "_reply_code",
        "_error_code",
        "_explain",
        "_explain_start_failure",
    ),
}


def own_errors() -> set[str]:
    """The names of the package's classes, and so of its errors, in whichever module."""
    return {node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def caught_names(node: ast.expr | None) -> list[str]:
    if isinstance(node, ast.Tuple):
        return [name for element in node.elts for name in caught_names(element)]
    return [ast.unparse(node).rpartition(".")[2] if node else "everything"]


def shown_by(handler: ast.ExceptHandler) -> Iterator[ast.AST]:
    """The places of a handler that format its error, or hand it to a function that is not in READERS."""
    for node in ast.walk(handler):
        if isinstance(node, ast.FormattedValue) and ast.unparse(node.value) == handler.name:
            yield node
        is_given = isinstance(node, ast.Call) and any(ast.unparse(argument) == handler.name for argument in node.args)
        if is_given and ast.unparse(node.func).rpartition(".")[2] not in READERS:  # type: ignore[attr-defined]
            yield node


def test_every_text_of_a_foreign_error_comes_from_one_place() -> None:
    own = own_errors()
    found = []
    for path, tree in TREES.items():
        for handler in (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)):
            if handler.name and set(caught_names(handler.type)) - own:
                found += [f"{path.name}:{place.lineno}" for place in shown_by(handler)]  # type: ignore[attr-defined]
    assert found == []


def test_no_traceback_is_logged_with_the_texts_of_libraries() -> None:
    """`log.exception` and `exc_info=` would print them; `traceback_text` does not."""
    found = [
        f"{path.name}:{line}"
        for path in TREES
        for line, text in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\blog(ger)?\.exception\(|\bexc_info=", text)
    ]
    assert found == []
