"""Which trial of a sweep is chosen: the best by the objective, or the base configuration where it is as good.

Validation data cannot tell many settings apart. Of trials within two standard errors of the best the
preferred setting is taken, and here that is the one that was good before anybody searched: after the rule of
one standard error of Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, with the
base configuration in the place of the smallest tree. The error is that of the paired difference
(:mod:`tune.search.trust`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tune.records.sweep_summary import TrustFacts
from tune.search.study import Study
from tune.search.trial_facts import is_copy
from tune.search.trust import Trust, trust_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Choice:
    """The trial that a sweep chooses, and what that is worth.

    Attributes:
        best: The finished trial with the best first objective.
        chosen: The one that is scored on the test set.
        trust: Which trials validation data cannot tell from the best; None where the objective is another
            than the AUROC alone. Then the best is chosen.
        why: Which was chosen and why, in a sentence; empty without `trust`.
    """

    best: FrozenTrial
    chosen: FrozenTrial
    trust: Trust | None = None
    why: str = ""

    @property
    def facts(self) -> TrustFacts | None:
        """For a summary; None where there is nothing to say."""
        if self.trust is None:
            return None
        return TrustFacts(
            finished=self.trust.finished,
            within_error=len(self.trust.near),
            trials=self.trust.near,
            error=self.trust.error,
            sentence=self.trust.sentence,
            best=self.best.number,
            chosen=self.chosen.number,
            why=self.why or None,
        )


def choose(study: Study) -> Choice | None:
    """The choice among a sweep's finished trials; None where there are none.

    Of several objectives the trial with the best first one is chosen, as ever: it is on the front.
    """
    best, plan = study.best, study.plan
    if best is None:
        return None
    if plan.objectives[0] != "auroc":
        return Choice(best, best)
    finished = [t for t in study.trials if t.state.name == "COMPLETE" and not is_copy(t)]
    trust = trust_of(study.paths, finished, best, plan.config.evaluation.confidence)
    if len(plan.objectives) > 1:
        return Choice(best, best, trust)
    base = study.base_trial
    if base is None:
        reason = "no trial of this sweep has the base configuration"
        if not plan.base_trial:
            reason = "the base configuration was not to be preferred (--no-base-trial)"
        why = f"Trial {best.number:04d}, the best by the objective, is chosen: {reason}."
        return Choice(best, best, trust, why)
    trust = replace(trust, anchored=base.number in trust.near)
    return Choice(best, base if trust.anchored else best, trust, _why(best, base, trust))


def _why(best: FrozenTrial, base: FrozenTrial, trust: Trust) -> str:
    """Why the base configuration is chosen, where `trust` is anchored in it; else why the best trial is."""
    name = f"Trial {best.number:04d}, the best by the objective, is chosen"
    other = f"the base configuration, trial {base.number:04d}"
    if base.state.name != "COMPLETE":
        return f"{name}: {other}, did not finish."
    reached = f"{best.values[0]:.4f} against {base.values[0]:.4f}"
    if not trust.anchored:
        if trust.error is None:
            return f"{name}: it leads {other} ({reached}), and by how many errors is not known."
        return f"{name}: it leads {other}, by more than {trust.measure} ({reached})."
    name = f"Trial {base.number:04d}, the base configuration, is chosen"
    if best.number == base.number:
        return f"{name}: it is the best by the objective."
    if best.values[0] == base.values[0]:
        return (
            f"{name}: trial {best.number:04d} reaches the same, and then the base configuration is preferred."
        )
    return (
        f"{name}: trial {best.number:04d}, the best by the objective, leads it by no more than "
        f"{trust.measure} ({reached}), and then the base configuration is preferred."
    )
