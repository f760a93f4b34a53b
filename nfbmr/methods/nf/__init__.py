"""NF: its defaults, which NF-BMR has as well; :mod:`.model` has the method."""

from __future__ import annotations

from typing import Any

from nfbmr.methods.method import Method

JOINED_SIZES: dict[str, Any] = {
    "features": {
        "scales": [1.0, 0.5, 0.25],
        "joined": "middle",
        "detail": {"taps": ["blocks.2", "blocks.4"], "symmetry": "auto"},
    },
    "flow": {"blocks": 6, "kernels": [1]},
    "train": {"flow": {"epochs": 10, "batch": 16, "lr": 2e-3}, "mapping": {"batch": 16, "lr": 1e-3}},
    # With rates that go down to nothing the last epoch is as good as any, and validation cannot tell them
    # apart: the least held-out loss takes the second of twenty, two points worse (LOG.md, 2026-11-29).
    "selection": {"epoch": "last"},
}
"""Three small sizes joined and subnets that see one position each: what does best on Magnetic Tile Defects,
on the split with leaks and on the one without (LOG.md, 2026-11-28). The paper has one size of 768 pixels."""

METHOD = Method(
    title="normalizing flow alone",
    source="Zhang et al. 2024, Table 5, last row",
    networks=f"{__name__}.model:NF",
    stages=("flow", "detail"),
    shares="flow",
    defaults=JOINED_SIZES,
)
"""The row of the table."""
