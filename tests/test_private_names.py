"""Private names of libraries: found where they can be seen, and excepted one by one."""

from __future__ import annotations

import pytest

from scripts.private_names import MOST_EXCEPTIONS, Allowed, Use, main, problems, uses


def names(text: str) -> list[str]:
    return [use.name for use in uses({"a.py": text})]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from ray import _raylet", "ray._raylet"),
        ("import ray._private.node as node", "ray._private.node"),
        ("def f():\n    from mlflow.store.db.utils import _upgrade_db", "mlflow.store.db.utils._upgrade_db"),
        ("import torch\ntorch._foreach_norm([])", "torch._foreach_norm"),
        ("import torch\ncall = torch.ops.mkldnn._conv", "torch.ops.mkldnn._conv"),
        ("import sys\nsys.modules.get('ray._private.services')", "ray._private.services"),
        (
            "import optuna\ndef f(trial: optuna.trial.FrozenTrial):\n    return trial._trial_id",
            "optuna.trial.FrozenTrial._trial_id",
        ),
        ("def f(trial):\n    return trial._trial_id", "?._trial_id"),
        ("def f(error):\n    return getattr(error, '_base_exc', error)", "?._base_exc"),
        ("import ray\nray.init(_temp_dir='x')", "ray.init(_temp_dir=)"),
    ],
)
def test_private_names_are_found(text: str, name: str) -> None:
    assert names(text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "import ray\nray.init(address='local')",
        "import torch\ntorch.__version__",
        "class A:\n    def f(self, other):\n        self._b = 1\n        return other._b",
        "import os\nos._exit(1)",
        "point._replace(x=1)",
        "from timm.layers import get_notrace_modules as _modules\n_modules()",
    ],
)
def test_public_names_and_ones_own_are_not(text: str) -> None:
    assert names(text) == []


def test_an_exception_holds_for_one_file_and_one_name() -> None:
    found = [Use("a.py", 1, "ray._raylet"), Use("b.py", 2, "ray._raylet")]
    exception = Allowed("a.py", frozenset({"ray._raylet"}), "there is no other", "https://example.org/1")
    assert list(problems(found, [exception])) == ["b.py:2: ray._raylet is private"]


def test_an_exception_that_is_not_needed_or_says_not_why_is_refused() -> None:
    unused = Allowed("a.py", frozenset({"ray._raylet"}), "there is no other", "https://example.org/1")
    assert "no longer used" in next(problems([], [unused]))
    silent = Allowed("a.py", frozenset({"ray._raylet"}), "", "")
    assert "without a reason" in next(problems([Use("a.py", 1, "ray._raylet")], [silent]))
    many = [Allowed(f"{i}.py", frozenset(), "why", "https://example.org") for i in range(MOST_EXCEPTIONS + 1)]
    assert "are the most" in next(problems([], many))


def test_ours_use_none_but_those_that_are_excepted() -> None:
    assert main() == 0
