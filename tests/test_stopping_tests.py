"""A stop that is asked for while images are scored ends the run, also of a method that trains nothing."""

from __future__ import annotations

from typing import Any

import pytest

from nfbmr.errors import Interrupted
from nfbmr.run import Clock, execute_run, fit, journal_only, new_run, open_run, score_test
from nfbmr.run_logger import RunLogger
from nfbmr.stopping import StopRequest, until_stopped
from nfbmr.tracking import NoTracker


@pytest.mark.parametrize("method", ["padim", "patchcore", "spade"])
def test_a_stop_ends_the_test_and_the_run_goes_on_later(method: str, tiny: Any) -> None:
    run, stop = new_run(tiny(method=method, features__taps=["blocks.1", "blocks.2"])), StopRequest()
    trained = fit(run, RunLogger(run.paths, run.config, NoTracker()), Clock(), stop)
    scored, _ = score_test(trained, stop)  # every feature is stored now, so that only the scoring is left
    stop.ask()
    with pytest.raises(Interrupted, match="images were scored"):
        score_test(trained, stop)
    assert not run.paths.summary.exists()
    summary = execute_run(open_run(run.paths.root), journal_only, StopRequest())
    assert sum(summary.kinds.values()) == len(scored)


def test_steps_are_looked_at_one_by_one() -> None:
    stop = StopRequest()
    steps = until_stopped(range(5), stop, "parts were counted")
    assert [next(steps), next(steps)] == [0, 1]
    stop.ask()
    with pytest.raises(Interrupted, match="stopped while parts were counted"):
        next(steps)
    assert list(until_stopped(range(3), None, "")) == [0, 1, 2]
