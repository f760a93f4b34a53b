"""Say how many functions are private helpers with a single use: for each a reader jumps to another place.

A helper's name begins with an underscore; its use is the one name or attribute in its own file that is
spelled like it. What could not stand in the place of that use does not count: a function that is handed on
(an entry of a table, a callback), one that is decorated (a cache, a property), one of several of a name (a
subclass's). Functions inside of functions are left out. ``make check`` runs it, and refuses a package that
has more than :data:`MOST`.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST = {"nfbmr": 0.145, "tune": 0.12, "cluster": 0.235, "mlflow_server": 0.18}
"""Of the functions of a package the share that may be such helpers: what was reached, a little rounded up."""


@dataclass(frozen=True)
class Helper:
    """A private function that is called in one place.

    Attributes:
        name: Of the function or method.
        line: Where it begins.
        lines: How many it has, its signature included.
    """

    name: str
    line: int
    lines: int


def helpers(source: str) -> tuple[list[Helper], int]:
    r"""The private helpers with a single use in a file, and how many functions and methods it has.

    Example:
        >>> listed, functions = helpers("def _a():\n    pass\n\ndef _b():\n    _a()\n\nhooks = [_b]")
        >>> [helper.name for helper in listed], functions
        (['_a'], 2)
    """
    tree = ast.parse(source)
    inside: set[ast.AST] = set()
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        inside.update(node for node in ast.walk(function) if node is not function)
    functions = [function for function in functions if function not in inside]
    names = Counter(function.name for function in functions)
    uses = Counter(name for node in ast.walk(tree) if (name := _spelled(node)) is not None)
    called = {_spelled(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    listed = [
        Helper(function.name, function.lineno, (function.end_lineno or 0) - function.lineno + 1)
        for function in functions
        if function.name.startswith("_") and not function.name.startswith("__")
        if uses[function.name] == names[function.name] == 1 and function.name in called
        if not function.decorator_list
    ]
    return listed, len(functions)


def _spelled(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def main() -> int:
    """Print each package's share, and the helpers of one that is above its limit, the shortest first."""
    too_many = 0
    for package, most in MOST.items():
        helpers_in: list[tuple[int, str]] = []
        functions = 0
        for path in sorted((ROOT / package).rglob("*.py")):
            in_file, number = helpers(path.read_text(encoding="utf-8"))
            functions += number
            place = path.relative_to(ROOT)
            helpers_in += [(h.lines, f"{place}:{h.line}: {h.name}, {h.lines} lines") for h in in_file]
        share = len(helpers_in) / functions
        words = f"{len(helpers_in)} of {functions} functions are private helpers with a single use"
        sys.stdout.write(f"{package}: {words} ({share:.1%}, at most {most:.1%})\n")
        if share > most:
            too_many += 1
            sys.stderr.writelines(f"{line}\n" for _, line in sorted(helpers_in))
    if too_many:
        sys.stderr.write("  -> inline those that are shorter than the sentence that calls them\n")
    return int(too_many > 0)


if __name__ == "__main__":
    sys.exit(main())
