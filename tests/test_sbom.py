"""What `make sbom` makes of the components that cyclonedx-py finds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sbom import complete_sbom

FOLDER = {"type": "distribution", "url": "file:///home/me/ecs-queue"}


def sbom(**changes: Any) -> dict[str, Any]:
    ours = {"name": "ecs-queue", "version": "1.0", "licenses": [{}], "type": "library", "externalReferences": [FOLDER]}
    other = {"name": "click", "version": "8.2"}
    return {"metadata": {"tools": {}}, "components": [other, {**ours, **changes}], "dependencies": []}


def test_ecs_queue_is_the_root_component_without_the_folder_of_its_build() -> None:
    complete = complete_sbom(sbom())

    root = complete["metadata"]["component"]
    assert (root["name"], root["version"], root["licenses"], root["type"]) == ("ecs-queue", "1.0", [{}], "application")
    assert [component["name"] for component in complete["components"]] == ["click"]
    assert complete["metadata"]["tools"] == {}
    assert "file:" not in str(complete)


def test_without_a_license_or_with_another_local_file_it_is_refused() -> None:
    with pytest.raises(ValueError, match="no licenses"):
        complete_sbom(sbom(licenses=[]))
    other = sbom()
    other["components"][0]["externalReferences"] = [FOLDER]
    with pytest.raises(ValueError, match="local file"):
        complete_sbom(other)
