"""Say which public constants and type aliases have no docstring: a reader meets them in other files.

A constant is documented by the string below it, which editors and the site show; neither shows a comment.
``log`` and ``logger``, and type variables, say what they are. ``make check`` runs it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nfbmr", "tune", "cluster", "mlflow_server")
UNDERSTOOD = frozenset({"log", "logger"})


def undocumented(source: str) -> Iterator[tuple[int, str]]:
    r"""Line and name of each public constant of a module that no string below it describes.

    Example:
        >>> list(undocumented("A = 1\n'''Of what.'''\nB, _C = 2, 3\n_D = 4\nT = TypeVar('T')"))
        [(3, 'B')]
    """
    body = ast.parse(source).body
    for statement, after in zip(body, [*body[1:], None], strict=True):
        for name in _assigned(statement):
            if not name.startswith("_") and name not in UNDERSTOOD and not _is_text(after):
                yield statement.lineno, name


def _assigned(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement gives a value; none for a type variable."""
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id
    elif isinstance(statement, ast.Assign) and not ast.unparse(statement.value).startswith("TypeVar("):
        for target in statement.targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def _is_text(statement: ast.stmt | None) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def main() -> int:
    """Print what lacks a docstring; 1 where something does."""
    missing = [
        f"{path.relative_to(ROOT)}:{line}: {name} has no docstring"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in undocumented(path.read_text(encoding="utf-8"))
    ]
    for line in missing:
        sys.stdout.write(f"{line}\n")
    if missing:
        sys.stderr.write('  -> say in a string below what it is, and its unit; or begin it with "_"\n')
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
