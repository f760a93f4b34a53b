"""Say which files import each other in a circle, be it inside functions or for types alone.

Layer contracts order rooms; this orders the files in them, so that any file can be read after those that it
imports. ``make check`` runs it.
"""

from __future__ import annotations

import graphlib
import itertools
import sys

import grimp

PACKAGES = ("nfbmr", "tune", "cluster", "mlflow_server")


def cycle_of(graph: grimp.ImportGraph) -> list[str]:
    """Modules that import each other in a circle, the first one again at the end; empty where none do.

    Args:
        graph: Modules and every import between them, wherever in a file it stands.
    """
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def main() -> int:
    """Print the first circle there is; the exit code is 1 then."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    cycle = cycle_of(graph)
    for importer, imported in itertools.pairwise(cycle):
        lines = [
            details["line_number"]
            for details in graph.get_import_details(importer=importer, imported=imported)
        ]
        sys.stderr.write(f"{importer} imports {imported} (line {', '.join(map(str, lines))})\n")
    if cycle:
        sys.stderr.write("  -> these files import each other in a circle: move what both need into a third\n")
    return int(bool(cycle))


if __name__ == "__main__":
    sys.exit(main())
