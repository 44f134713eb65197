"""`DiagnosisOracle`: a KerasTuner oracle that proposes the next trial from the diagnosis of the earlier ones.

Contract: `proposals` decides, `repairs` reads what the trials' folders hold. KerasTuner (extra `tuner`) is imported
with this module, and saves, resumes and distributes the search.

    oracle = DiagnosisOracle(objective=objective("val_eer"), max_trials=20, seed=1)
    tuner = keras_tuner.Tuner(oracle, SiameseHyperModel(encoder, space), directory="runs")
    tuner.search(x, labels, cv=3, epochs=10, on_divergence="stop")
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_siamese import _checks
from keras_siamese.tuning.objectives import sign_of
from keras_siamese.tuning.proposals import Tried, propose
from keras_siamese.tuning.repairs import agreed, read

if TYPE_CHECKING:
    import keras_tuner

keras_tuner = _checks.check_installed("keras_tuner", "tuner")
logger = logging.getLogger(__name__)


class DiagnosisOracle(keras_tuner.Oracle):
    """Proposes the next trial of a search from what `DivergenceMonitor` found in the earlier ones.

    Each trial of a `SiameseHyperModel` is diagnosed. If its margin is too small, its learning rate too high, or if it
    has too few genuine pairs, the next trial has the repaired values, rounded to the nearest values of the space.
    Repairs start from the best trial, and those of a cause that have made a trial worse are not tried again. Where
    nothing is found, the learning rate rises by a factor of 3 if the last epoch of the best trial was its best one, and
    falls by as much if an epoch in the first half was. After that the oracle repeats the step that led to the best
    trial, or makes a small random one, or, one time in ten, draws a point of the whole space. Hyperparameters that no
    repair knows, such as the number of layers, change in these steps only. The first trial is random.

    With ``search(…, on_divergence="stop")`` a trial ends early if it can be repaired, or if it falls behind the others
    (asynchronous successive halving, Li et al. 2020); see `SiameseHyperModel.fit`.

    The value of a hyperparameter is repaired if its name is that of a field of `SearchSpace` or, for a parameter of the
    encoder, that of a repair: `normalize`, `width`, `momentum`. With folds, a finding counts if at least half of the
    folds have it.

    The findings are read from the folders of the trials, so the workers of a distributed search must share the
    directory with the chief, as for KerasTuner's checkpoints. Otherwise the oracle only makes random steps.

    Args:
        objective: as in any KerasTuner oracle, for example ``objective("val_eer")``.
        max_trials: number of trials, ≥ 1.
        seed: integer ≥ 0.
        **kwargs: `hyperparameters`, `tune_new_entries`, `allow_new_entries`, `max_retries_per_trial` and
            `max_consecutive_failed_trials` of `keras_tuner.Oracle`.

    Attributes:
        reasons: dict from the name of a trial to the reason for it, a dict of `parent`, the trial that it starts
            from (None for a random point), and `causes`, those that it repairs.

    >>> oracle = DiagnosisOracle(objective="val_loss", max_trials=3, seed=1)
    >>> oracle.hyperparameters.Float("learning_rate", 1e-5, 1e-1, sampling="log")
    1e-05
    >>> sorted(oracle.populate_space("0")["values"])
    ['learning_rate']
    """

    def __init__(self, objective: Any = None, max_trials: int = 10, *, seed: int = 0, **kwargs: Any) -> None:
        _checks.check_integer("max_trials", max_trials, low=1)
        # KerasTuner draws a seed of its own from Python's global generator for 0.
        super().__init__(objective, max_trials, seed=1 + _checks.check_integer("seed", seed, low=0), **kwargs)
        self.reasons = {}

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial, for KerasTuner's `create_trial`."""
        rng = np.random.default_rng([self.seed, len(self.trials)])
        proposal = propose(self.hyperparameters, self.tried(), rng)
        if proposal is None:
            return {"status": "STOPPED", "values": None}
        self.reasons[trial_id] = {"parent": proposal.parent, "causes": list(proposal.causes)}
        if proposal.causes:
            logger.info("Trial %s repairs %s of trial %s", trial_id, ", ".join(proposal.causes), proposal.parent)
        return {"status": "RUNNING", "values": proposal.values}

    def tried(self) -> list[Tried]:
        """The trials so far as `Tried`, in the order in which they were started."""
        sign = sign_of(self.objective)
        found = []
        for name in self.start_order:
            trial, is_ended = self.trials[name], name in self.end_order
            score = None if trial.score is None or trial.status != "COMPLETED" else -sign * trial.score
            findings = agreed(read(Path(self._project_dir) / f"trial_{name}")) if is_ended else []
            reason = self.reasons.get(name, {"parent": None, "causes": []})
            found.append(Tried(name, trial.hyperparameters.values, score, findings, is_ended, **reason))
        return found

    def get_state(self) -> dict[str, Any]:
        """The state that KerasTuner saves."""
        return {**super().get_state(), "reasons": self.reasons}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a saved state."""
        super().set_state(state)
        self.reasons = state["reasons"]
