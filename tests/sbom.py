"""Makes ecs-queue the root component of a CycloneDX SBOM, and refuses one that shows places of this machine.

`make sbom` runs it on what cyclonedx-py found in an installed environment, where ecs-queue is one package of many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_NAME = "ecs-queue"
_NEEDED = ("name", "version", "licenses")


def complete_sbom(sbom: dict[str, Any]) -> dict[str, Any]:
    """Return the SBOM with ecs-queue as the root component, without the folder from which it was installed.

    Raises:
        ValueError: ecs-queue or a fact about it is missing, or the URL of a local file is left.
    """
    (root,) = [component for component in sbom["components"] if component["name"] == _NAME]
    missing = [name for name in _NEEDED if not root.get(name)]
    if missing:
        raise ValueError(f"the component {_NAME} has no {missing[0]}")
    references = [found for found in root.pop("externalReferences", []) if not found["url"].startswith("file:")]
    root |= {"type": "application"} | ({"externalReferences": references} if references else {})
    others = [component for component in sbom["components"] if component is not root]
    complete = {**sbom, "metadata": {**sbom["metadata"], "component": root}, "components": others}
    if "file://" in json.dumps(complete):
        raise ValueError("a component was installed from a local file, whose URL stands in the SBOM")
    return complete


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(json.dumps(complete_sbom(json.loads(path.read_text())), indent=2) + "\n")
