"""No public constant stands without a word: what counts as one, and as its description."""

from __future__ import annotations

import pytest

from scripts.documented_constants import main, undocumented


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("LIMIT = 3", ["LIMIT"]),
        ("LIMIT: int = 3", ["LIMIT"]),
        ("HOST, PORT = 'x', 1", ["HOST", "PORT"]),
        ("Shape = tuple[int, int]", ["Shape"]),
        ("LIMIT = 3  # of something", ["LIMIT"]),
        ("LIMIT = 3\n'''Of something.'''", []),
        ("LIMIT = 3\nOTHER = 4\n'''Of something else.'''", ["LIMIT"]),
        ("_LIMIT = 3", []),
        ("log = logging.getLogger(__name__)", []),
        ("T = TypeVar('T')", []),
        ("def f():\n    LIMIT = 3", []),
    ],
)
def test_public_constants_without_a_docstring_are_found(source: str, names: list[str]) -> None:
    assert [name for _, name in undocumented(source)] == names


def test_there_are_none() -> None:
    assert main() == 0
