"""Count the words of many texts in containers, and add the counts up as they come.

    eval "$(ecs-queue local env)" && python examples/map_reduce.py README.md docs/*.md

Each container writes its count as JSON into a directory that it shares with this program; on a cluster of your own that
would be S3. A container that fails is launched once more, and named if that fails too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import as_completed
from pathlib import Path

from ecs_queue import EcsQueue, Request

COUNT_WORDS = """
import collections, json, pathlib, sys
words = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").lower().split()
pathlib.Path(sys.argv[2]).write_text(json.dumps(collections.Counter(words)))
"""


def count_words(queue: EcsQueue, texts: list[Path], shared: Path, timeout: float) -> Counter[str]:
    """Return how often each word occurs in all texts."""
    batch = queue.submit_many(
        Request(
            command=["python3", "-c", COUNT_WORDS, str(text.resolve()), str(shared / f"{number}.json")],
            cpu=256,
            memory=512,
            relaunch="interrupted",
            time_limit="10m",
        )
        for number, text in enumerate(texts)
    )
    total = Counter[str]()
    for future in as_completed(batch, timeout):
        result = future.result()
        if result.succeeded:
            number = [handle.id for handle in batch].index(result.id)
            counted: dict[str, int] = json.loads((shared / f"{number}.json").read_text())
            total.update(counted)
        else:
            print(f"{result.id} ended as {result.state}: {result.reason}", file=sys.stderr)
    return total


def main(texts: list[Path]) -> int:
    """Print the ten most frequent words."""
    with tempfile.TemporaryDirectory() as shared, EcsQueue.from_config() as queue:
        total = count_words(queue, texts, Path(shared), timeout=600)
    for word, count in total.most_common(10):
        print(f"{count:7} {word}")
    return 0 if total else 1


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
