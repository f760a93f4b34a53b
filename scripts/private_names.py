"""Say where private names of ray, mlflow, optuna, torch and timm are used: they change without notice.

Names that begin with an underscore count, in imports, in strings that name a module, in attributes, in
``getattr`` and as arguments of calls; of an object whose type is not written down, an attribute counts if
nothing of ours has one of that name. ``make check`` runs it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("nfbmr", "tune", "cluster", "mlflow_server", "scripts", "benchmarks")
LIBRARIES = ("ray", "mlflow", "optuna", "torch", "timm")
MOST_EXCEPTIONS = 5
OF_PYTHON = frozenset({"_replace", "_asdict", "_fields", "_make", "_name_", "_value_", "_exit"})
_MODULE = re.compile(rf"({'|'.join(LIBRARIES)})(\.\w+)*\._[a-z]\w*(\.\w+)*")


@dataclass(frozen=True)
class Allowed:
    """Private names that one file may use.

    Attributes:
        file: Relative to the project.
        names: What stands in the code, as :class:`Use` shows it.
        reason: Why no public name does.
        thread: Address of the public thread that asks for one.
    """

    file: str
    names: frozenset[str]
    reason: str
    thread: str


EXCEPTIONS = (
    Allowed(
        "nfbmr/features/fused.py",
        frozenset({"torch.ops.mkldnn._convolution_pointwise"}),
        "the one operator that convolves and applies an activation in one pass over memory outside of "
        "torch.compile; checked against torch's own convolutions each time, and left out where it differs",
        "https://github.com/pytorch/pytorch/pull/76581",
    ),
    Allowed(
        "cluster/auth_token.py",
        frozenset({"ray._raylet"}),
        "Ray reads RAY_AUTH_MODE when it is imported, and ray.init(address=...) never shows the token that "
        "ray.init() has written: in a notebook that has imported Ray nothing else makes it read it again",
        "https://github.com/ray-project/ray/pull/64755",
    ),
    Allowed(
        "mlflow_server/client.py",
        frozenset({"mlflow.store.db.utils._initialize_tables"}),
        "makes a new SQLite database whole or not at all: one that MLflow left half made is of no use",
        "https://github.com/mlflow/mlflow/issues/23721",
    ),
    Allowed(
        "mlflow_server/hosting/database.py",
        frozenset({"mlflow.store.db.utils._get_latest_schema_revision"}),
        "which schema this version of MLflow wants, before it is asked to open a database",
        "https://github.com/mlflow/mlflow/issues/21053",
    ),
    Allowed(
        "mlflow_server/hosting/collection.py",
        frozenset(
            {
                "?._get_deleted_logged_models",
                "?._get_deleted_runs",
                "?._hard_delete_experiment",
                "?._hard_delete_logged_model",
                "?._hard_delete_run",
            }
        ),
        "collects under our lock, and says how much; `mlflow gc` stops at the first missing file",
        "https://github.com/mlflow/mlflow/issues/3595",
    ),
)


@dataclass(frozen=True, order=True)
class Use:
    """A private name in a file.

    Attributes:
        file: Relative to the project.
        line: Where it stands.
        name: Dotted where the library is known; else ``?._name``.
    """

    file: str
    line: int
    name: str


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore, without being one of Python's own.

    Example:
        >>> [is_private(name) for name in ("_raylet", "__class__", "_", "tune")]
        [True, False, False, False]
    """
    return len(name) > 1 and name.startswith("_") and not name.startswith("__")


def uses(files: Mapping[str, str]) -> list[Use]:
    """Every use of a private name in some files.

    Args:
        files: Texts by name. What they define themselves is theirs to use.
    """
    trees = {name: ast.parse(text) for name, text in files.items()}
    ours = frozenset(name for tree in trees.values() for name in _defined(tree))
    return sorted({use for name, tree in trees.items() for use in _File(name, tree, ours).uses()})


def problems(used: Iterable[Use], exceptions: Sequence[Allowed] = EXCEPTIONS) -> Iterator[str]:
    """What is to be mended, a line each.

    Args:
        used: Uses of private names.
        exceptions: Those that stay, at most :data:`MOST_EXCEPTIONS`.
    """
    seen = set()
    allowed = {(entry.file, name) for entry in exceptions for name in entry.names}
    for use in used:
        seen.add((use.file, use.name))
        if (use.file, use.name) not in allowed:
            yield f"{use.file}:{use.line}: {use.name} is private"
    for file, name in sorted(allowed - seen):
        yield f"{file}: {name} is excepted, and no longer used"
    if len(exceptions) > MOST_EXCEPTIONS:
        yield f"{len(exceptions)} exceptions, where {MOST_EXCEPTIONS} are the most"
    for entry in exceptions:
        if not entry.reason or not entry.thread.startswith("https://"):
            yield f"{entry.file}: an exception without a reason, or without a public thread"


def _defined(tree: ast.AST) -> Iterator[str]:
    """Private names that a file defines: functions, variables, attributes, arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        else:
            continue
        if is_private(name):
            yield name


class _File:
    """One file's imports and annotations, and what they say of its attributes."""

    def __init__(self, name: str, tree: ast.Module, ours: frozenset[str]) -> None:
        self.name, self.tree, self.ours = name, tree, ours
        self.imported: dict[str, str] = {}  # what a name stands for: inductor -> torch._inductor.config
        for node in ast.walk(tree):
            for alias, full in _imports(node):
                self.imported[alias] = full
        self.annotated = dict(self._annotations())

    def uses(self) -> Iterator[Use]:
        for node in ast.walk(self.tree):
            for name in self._private_in(node):
                yield Use(self.name, getattr(node, "lineno", 0), name)

    def _private_in(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (full for full in _modules(node) if any(map(is_private, full.split("."))))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            yield from self._of_attribute(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _MODULE.fullmatch(node.value):
                yield node.value
        elif isinstance(node, ast.Call):
            yield from self._of_call(node)

    def _of_attribute(self, node: ast.Attribute) -> Iterator[str]:
        owner = self._library_of(node.value)
        if owner is not None:
            yield f"{owner}.{node.attr}"
        elif node.attr not in self.ours | OF_PYTHON and not self._is_foreign(node.value):
            yield f"?.{node.attr}"

    def _of_call(self, node: ast.Call) -> Iterator[str]:
        called = self._library_of(node.func)
        for keyword in node.keywords:
            if keyword.arg and is_private(keyword.arg) and (called or keyword.arg not in self.ours):
                yield f"{called or '?'}({keyword.arg}=)"
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr") and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and is_private(name.value):
                owner = self._library_of(node.args[0])
                if owner or name.value not in self.ours | OF_PYTHON:
                    yield f"{owner or '?'}.{name.value}"

    def _library_of(self, node: ast.expr) -> str | None:
        """The dotted name of what an expression is, where that is a library's."""
        words: list[str] = []
        while isinstance(node, ast.Attribute | ast.Call):
            if isinstance(node, ast.Attribute):
                words.insert(0, node.attr)
                node = node.value
            else:
                node = node.func
        if not isinstance(node, ast.Name):
            return None
        full = self.imported.get(node.id) or self.annotated.get(node.id)
        if full is None or full.partition(".")[0] not in LIBRARIES:
            return None
        return ".".join([full, *words])

    def _is_foreign(self, node: ast.expr) -> bool:
        """Whether this is a module of the standard library, or of another package."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.imported

    def _annotations(self) -> Iterator[tuple[str, str]]:
        """Arguments and variables that are said to be something of a library's."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.arg) and node.annotation is not None:
                name, said = node.arg, node.annotation
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name, said = node.target.id, node.annotation
            else:
                continue
            for part in ast.walk(said):
                full = self.imported.get(part.id) if isinstance(part, ast.Name) else None
                if (
                    full
                    and full.partition(".")[0] in LIBRARIES
                    and isinstance(said, ast.Name | ast.Attribute)
                ):
                    yield name, full if isinstance(said, ast.Name) else ast.unparse(said)


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that an import binds, with what they stand for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _modules(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """What of the libraries an import names, in full."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        names = [f"{node.module}.{alias.name}" for alias in node.names] if not node.level else []
    yield from (name for name in names if name.partition(".")[0] in LIBRARIES)


def main() -> int:
    """Print what is to be mended; the exit code is 1 then."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    here = Path(__file__).resolve()
    files = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths if path != here
    }
    lines = list(problems(uses(files)))
    sys.stderr.writelines(f"{line}\n" for line in lines)
    if lines:
        sys.stderr.write(
            "  -> use what the library documents; where it has nothing, scripts/private_names.py takes an "
            "exception with the reason and the public thread that asks for it\n"
        )
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
