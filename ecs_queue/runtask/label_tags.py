"""Makes tags of a request's labels, where its queue's profile says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ecs_queue.errors import InvalidRequest
from ecs_queue.messages.labels import MAX_LABELS

#: In `tag_labels`: every label becomes a tag.
EVERY_LABEL = "*"


def add_label_tags(kwargs: dict[str, Any], chosen: Collection[str], labels: Mapping[str, str]) -> None:
    """Add the chosen labels to the tags of run_task's arguments. A tag that is set already stays as it is.

    Raises:
        InvalidRequest: There would be more tags than ECS accepts.
    """
    tags = list(kwargs.get("tags", ()))
    known = {tag.get("key") for tag in tags}
    names = sorted(name for name in labels if (name in chosen or EVERY_LABEL in chosen) and name not in known)
    if not names:
        return
    tags += [{"key": name, "value": labels[name]} for name in names]
    if len(tags) > MAX_LABELS:
        raise InvalidRequest(
            f"labels: with the tags of its queue there are {len(tags)} tags, and ECS accepts {MAX_LABELS}; give the "
            "request fewer labels, or name fewer in tag_labels"
        )
    kwargs["tags"] = tags
