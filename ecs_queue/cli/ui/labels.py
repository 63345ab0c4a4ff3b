"""Reads the values of `--label`."""

from __future__ import annotations

from collections.abc import Sequence

from ecs_queue.errors import UsageError


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return the labels of KEY=VALUE texts."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--label: expected KEY=VALUE, such as team=data, found {text!r:.80}")
        labels[key] = value
    return labels
