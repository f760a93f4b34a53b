"""Private helpers with a single use are counted, and are few."""

from __future__ import annotations

import pytest

from scripts.single_use_helpers import MOST, helpers, main


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def _a(): ...\n_a()", ["_a"]),
        ("def _a(): ...\n_a()\n_a()", []),
        ("def a(): ...\na()", []),
        ("def _a(): ...", []),
        ("def _a(): ...\nhooks = [_a]", []),
        ("def _a(): ...\nhooks = [_a]\n_a()", []),
        ("class A:\n    def _a(self): ...\n    def b(self): self._a()", ["_a"]),
        ("class A:\n    def __enter__(self): ...\n    def b(self): self.__enter__()", []),
        ("async def _a(): ...\nasync def b(): await _a()", ["_a"]),
        ("def b():\n    def _a(): ...\n    _a()", []),
        ("@cache\ndef _a(): ...\n_a()", []),
        ("class A:\n    def a(self): self._b()\n    def _b(self): 1\nclass B:\n    def _b(self): 2", []),
    ],
)
def test_helpers_that_are_called_in_one_place_are_found(source: str, names: list[str]) -> None:
    assert [helper.name for helper in helpers(source)[0]] == names


def test_functions_inside_of_functions_are_not_counted() -> None:
    assert helpers("def a():\n    def b(): ...\n\nclass C:\n    def d(self): ...")[1] == 2


def test_the_packages_have_no_more_than_they_may() -> None:
    assert main() == 0


def test_a_package_with_more_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MOST, "tune", 0.0)
    assert main() == 1
    assert "tune/search/sweep.py" in capsys.readouterr().err
