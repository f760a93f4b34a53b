"""Nested dictionaries as dotted keys, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level of dotted keys.

    Example:
        >>> flatten({"flow": {"blocks": 4, "kernels": (3, 5)}, "seed": 0})
        {'flow.blocks': 4, 'flow.kernels': (3, 5), 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries: what :func:`flatten` undoes.

    Example:
        >>> unflatten({"flow.blocks": 8, "flow.hidden": 64, "seed": 1})
        {'flow': {'blocks': 8, 'hidden': 64}, 'seed': 1}
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
