"""How far a sweep is, for people: one line that is drawn anew on a terminal, else a line for each trial."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class ProgressState:
    """Where a sweep stands.

    Attributes:
        total: Trials asked for.
        before: Trials that had ended when this driver began, or have cost it nothing.
        states: Trials that ended since, by state.
        running: Trials that are being run.
        best: The best first objective so far, and whose it is.
    """

    total: int
    before: int = 0
    states: Counter[str] = field(default_factory=Counter)
    running: int = 0
    best: tuple[float, str] | None = None

    @property
    def done(self) -> int:
        """Trials that ended, in whatever state."""
        return self.before + sum(self.states.values())

    def left(self, elapsed: float) -> float | None:
        """Seconds to go, if the rest takes as long as what this driver did; None before it did anything.

        Example:
            >>> ProgressState(total=8, before=2, states=Counter(finished=2)).left(elapsed=60.0)
            120.0
        """
        ended = sum(self.states.values())
        return None if ended == 0 else elapsed / ended * (self.total - self.done)

    def words(self) -> str:
        """Counts and the best so far.

        Example:
            >>> states = Counter(finished=2, pruned=1)
            >>> ProgressState(8, states=states, running=2, best=(0.91234, "0003")).words()
            '2 running, 1 pruned, best 0.9123 (0003)'
        """
        parts = [f"{self.running} running"] if self.running else []
        parts += [f"{self.states[state]} {state}" for state in ("pruned", "failed") if self.states[state]]
        if self.best is not None:
            parts.append(f"best {self.best[0]:.4f} ({self.best[1]})")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Time in the two units that matter.

    Example:
        >>> duration(42), duration(260), duration(9000)
        ('42 s', '4 min 20 s', '2 h 30 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


class Progress:
    """Draws a :class:`ProgressState`; quiet where standard error is no terminal, but for the log.

    Args:
        state: What is drawn; kept up to date here.
        what: What people call a trial: an ablation has cells.
    """

    def __init__(self, state: ProgressState, what: str = "trial") -> None:
        self.state = state
        self._what = what
        self._began = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.state.total,
                initial=self.state.done,
                desc=f"{self._what}s",
                bar_format="{desc} {n_fmt}/{total_fmt} |{bar:24}| {unit}",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def started(self) -> None:
        """A trial begins."""
        self.state.running += 1
        self._draw()

    def ended(
        self,
        key: str,
        state: str,
        value: float | None,
        best: tuple[float, str] | None,
        error: str | None = None,
    ) -> None:
        """A trial ended.

        Args:
            key: Key of the trial.
            state: How.
            value: Its first objective, where it has one.
            best: The best so far, and whose it is.
            error: What was wrong, where it failed.
        """
        progress = self.state
        progress.running = max(0, progress.running - 1)
        progress.best = best
        if state != "interrupted":
            progress.states[state] += 1
        if error is not None:
            log.warning("%s %s failed: %s", self._what, key, error)
        elif self._bar is None:
            reached = "" if value is None else f": {value:.4f}"
            words = progress.words()
            log.info("%s %s %s%s; %d of %d done%s%s", self._what, key, state, reached, progress.done,
                     progress.total, words and f", {words}", self._time_left())  # fmt: skip
        self._draw()

    def repeated(self, key: str, earlier: str, state: str) -> None:
        """A trial was not run, as an earlier one had its settings.

        Args:
            key: Key of the trial.
            earlier: Key of the earlier one.
            state: How that ended, and with it this one.
        """
        self.state.before += 1  # it took no time, so it says nothing of the time that is left
        if self._bar is None:
            log.info("%s %s repeats %s, so it is not run: %s as well; %d of %d done", self._what, key,
                     earlier, state, self.state.done, self.state.total)  # fmt: skip
        self._draw()

    def _time_left(self) -> str:
        left = self.state.left(time.monotonic() - self._began)
        return "" if left is None or left <= 0 else f", about {duration(left)} left"

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.unit = f"{self.state.words()}{self._time_left()}"
            self._bar.n = self.state.done
            self._bar.refresh()
