"""The direction of imports: circles are found wherever they hide, and there are none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from scripts.import_cycles import cycle_of, main


def test_our_own_files_import_each_other_in_no_circle() -> None:
    assert main() == 0


def test_a_circle_inside_a_function_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hidden_circle"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text("def f():\n    from hidden_circle import b\n    return b\n")
    (package / "b.py").write_text("from hidden_circle import a\n")
    (package / "c.py").write_text("from hidden_circle import a\n")
    monkeypatch.syspath_prepend(tmp_path)
    cycle = cycle_of(grimp.build_graph("hidden_circle", cache_dir=None))
    assert set(cycle) == {"hidden_circle.a", "hidden_circle.b"}
    assert cycle[0] == cycle[-1]


@pytest.mark.parametrize(
    "module",
    [
        "cluster.serving.service",
        "cluster.serving.ray_service",
        "cluster.serving.ray_listener",
        "cluster.cli.jobs",
    ],
)
def test_what_only_watches_listens_or_asks_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
