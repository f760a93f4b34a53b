"""Draw the three pictures of ``docs/start-here.md``: ``python -m scripts.diagrams``.

A picture is boxes on a grid and arrows between them. A box has what happens, and the file where; the tests
hold that the files exist, and that the pictures are those drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"

WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 236, 62, 60, 40, 14
"""Of a box, of the space between boxes, and of the space around them, in pixels."""


@dataclass(frozen=True)
class Box:
    """A step: its place on the grid, what happens, and the file (or what is kept) below it."""

    column: int
    row: int
    title: str
    file: str = ""
    kept: bool = False  # something that lies on the disk, not something that is done

    @property
    def left(self) -> int:
        """Of the box, in pixels."""
        return EDGE + self.column * (WIDTH + GAP_X)

    @property
    def top(self) -> int:
        """Of the box, in pixels."""
        return EDGE + self.row * (HEIGHT + GAP_Y)


@dataclass(frozen=True)
class Arrow:
    """From one box to another, by their numbers, with a word beside it."""

    start: int
    end: int
    word: str = ""


@dataclass(frozen=True)
class Picture:
    """Boxes, and arrows between them; `title` is read aloud."""

    title: str
    boxes: Sequence[Box]
    arrows: Sequence[Arrow]


RUN = Picture(
    "A run: images to features to stages to scores to a summary",
    (
        Box(0, 0, "images, split in three", "nfbmr/prepare.py"),
        Box(1, 0, "features of a frozen backbone", "nfbmr/features/extraction.py"),
        Box(2, 0, "the feature store", ".nfbmr/store", kept=True),
        Box(2, 1, "stages fitted in order", "nfbmr/methods/fitting.py"),
        Box(1, 1, "an epoch, then validation", "nfbmr/training/loop.py"),
        Box(0, 1, "checkpoints", "runs/RUN/checkpoints", kept=True),
        Box(2, 2, "score and threshold chosen", "nfbmr/scoring/selection.py"),
        Box(1, 2, "test set read, once", "nfbmr/run.py"),
        Box(0, 2, "metrics with intervals", "nfbmr/evaluation/evaluation.py"),
        Box(0, 3, "summary, report, model", "runs/RUN", kept=True),
        Box(1, 3, "journal, sent to MLflow", "nfbmr/tracking.py"),
    ),
    (
        Arrow(0, 1),
        Arrow(1, 2),
        Arrow(2, 3),
        Arrow(3, 4),
        Arrow(4, 5),
        Arrow(3, 6),
        Arrow(6, 7),
        Arrow(7, 8),
        Arrow(8, 9),
        Arrow(9, 10),
    ),
)

TRIAL = Picture(
    "A trial: suggested from the study, executed as a run, reported back",
    (
        Box(0, 0, "what was asked: sweep.yaml", "tune/search/plan.py"),
        Box(1, 0, "the study: suggests, prunes", "tune/search/study.py"),
        Box(2, 0, "study.journal", "runs/SWEEP", kept=True),
        Box(1, 1, "a trial to run: the seam", "tune/execution/trial_spec.py"),
        Box(0, 2, "on Ray", "tune/execution/ray_backend.py"),
        Box(2, 2, "in this process", "tune/execution/local_backend.py"),
        Box(1, 3, "one trial, in its folder", "tune/execution/run_trial.py"),
        Box(1, 4, "a run, without its test set", "nfbmr/run.py"),
        Box(2, 4, "trials/0007", "runs/SWEEP", kept=True),
        Box(0, 4, "one is chosen and tested", "tune/search/choice.py"),
    ),
    (
        Arrow(0, 1),
        Arrow(1, 2),
        Arrow(1, 3),
        Arrow(3, 4),
        Arrow(3, 5),
        Arrow(4, 6),
        Arrow(5, 6),
        Arrow(6, 7),
        Arrow(7, 8),
        Arrow(7, 9, "all done"),
    ),
)

PROMOTION = Picture(
    "A promotion: a run is packed, registered, judged by gates, and then the alias moves",
    (
        Box(0, 0, "a finished run", "runs/RUN", kept=True),
        Box(1, 0, "packed with its evidence", "mlflow_server/packaging/packing.py"),
        Box(2, 0, "a version is registered", "mlflow_server/registry/registering.py"),
        Box(2, 1, "where is the alias now?", "mlflow_server/registry/promotion.py"),
        Box(1, 1, "every gate judges", "mlflow_server/registry/gates.py"),
        Box(0, 1, "a clean process scores", "mlflow_server/registry/sandbox.py"),
        Box(1, 2, "an entry of the history", "mlflow_server/registry/history.py"),
        Box(2, 2, "the alias moves", "mlflow_server/registry/registry.py"),
        Box(0, 2, "refused: exit code 2", "--force --reason overrules", kept=True),
        Box(2, 3, "the server takes it", "cluster/serving/service.py"),
    ),
    (
        Arrow(0, 1),
        Arrow(1, 2),
        Arrow(2, 3),
        Arrow(3, 4),
        Arrow(4, 5),
        Arrow(4, 6, "all passed"),
        Arrow(4, 8, "one not"),
        Arrow(6, 7),
        Arrow(7, 9),
    ),
)

PICTURES = {"a-run": RUN, "a-trial": TRIAL, "a-promotion": PROMOTION}

_STYLE = (
    "text{font-family:Helvetica,Arial,sans-serif;font-size:13.5px;fill:#1d2b2a}"
    ".file{font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:10px;fill:#4a5a58}"
    ".arrow{stroke:#00695c;stroke-width:1.5}"
    ".word{font-size:11.5px;fill:#00695c;font-style:italic}"
)


def svg(picture: Picture) -> str:
    """A picture as a file that any browser shows.

    Example:
        >>> svg(RUN).startswith("<svg ")
        True
    """
    width = max(box.left for box in picture.boxes) + WIDTH + EDGE
    height = max(box.top for box in picture.boxes) + HEIGHT + EDGE
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{escape(picture.title)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#00695c"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        *(_box(box) for box in picture.boxes),
        *(
            _arrow(picture.boxes[arrow.start], picture.boxes[arrow.end], arrow.word)
            for arrow in picture.arrows
        ),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    middle = box.left + WIDTH // 2
    look = (
        'fill="#f4f1e8" stroke="#a08c4a" stroke-dasharray="4 3"'
        if box.kept
        else 'fill="#e6f2f0" stroke="#00695c"'
    )
    return (
        f'<rect x="{box.left}" y="{box.top}" width="{WIDTH}" height="{HEIGHT}" rx="7" {look}/>'
        f'<text x="{middle}" y="{box.top + 27}" text-anchor="middle">{escape(box.title)}</text>'
        f'<text class="file" x="{middle}" y="{box.top + 47}" text-anchor="middle">{escape(box.file)}</text>'
    )


def _arrow(start: Box, end: Box, word: str) -> str:
    (x1, y1), (x2, y2) = _ends(start, end)
    line = f'<line class="arrow" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#head)"/>'
    if not word:
        return line
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    place = f'x="{x + 8}" y="{y + 4}"' if x1 == x2 else f'x="{x}" y="{y - 6}" text-anchor="middle"'
    return f'{line}<text class="word" {place}>{escape(word)}</text>'


def _ends(start: Box, end: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    """From the side of a box to the side of another in the same row, else from below to above."""
    if start.row == end.row:
        y = start.top + HEIGHT // 2
        right = start.column < end.column
        return (start.left + (WIDTH if right else 0), y), (end.left + (0 if right else WIDTH), y)
    return (start.left + WIDTH // 2, start.top + HEIGHT), (end.left + WIDTH // 2, end.top)


def main() -> None:
    """Write all of them."""
    for name, picture in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(svg(picture), encoding="utf-8")


if __name__ == "__main__":
    main()
