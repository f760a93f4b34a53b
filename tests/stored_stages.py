"""What a store holds of fitted stages, for tests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


def stored_stages(store: Path) -> Counter[str]:
    """How many a store has of each stage, by the stages' names."""
    paths = store.glob("stages/*/stage.json")
    return Counter(json.loads(path.read_text())["identity"]["stage"] for path in paths)
