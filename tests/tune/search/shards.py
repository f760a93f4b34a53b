"""What lies in a store that a sweep was run with."""

from __future__ import annotations

from pathlib import Path

from nfbmr.paths import read_json


def feature_shards(store: Path) -> list[Path]:
    """Files that hold features, and not latents."""
    shards = (store / "spaces").glob("*/*.arrow")
    return [path for path in shards if read_json(path.parent / "space.json")["kind"] == "features"]
