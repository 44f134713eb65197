"""Objectives of a search: the keys that can be optimised, and their directions.

Contract: the keys are those that `VerificationMonitor` writes, and "loss".

    tuner = keras_tuner.RandomSearch(hypermodel, objective=objective("val_tar@far=0.01"), max_trials=20)
"""

from __future__ import annotations

import contextlib

from keras_siamese import _checks
from keras_siamese._types import Objective

SIGNS = {"val_eer": -1, "val_auc": 1, "val_verification_accuracy": 1, "val_d_prime": 1, "loss": -1}  # 1: maximised
TAR = "val_tar@far="  # followed by a rate; larger is better


def objective(name: str) -> Objective:
    """KerasTuner's `Objective` of a key, with its direction.

    Args:
        name: "val_eer" or "loss", which are minimised, or "val_auc", "val_verification_accuracy", "val_d_prime" or
            "val_tar@far=0.01" (or another rate), which are maximised. "val_threshold" cannot be an objective.

    Raises:
        ValueError: for any other name.

    >>> objective("val_auc").direction
    'max'
    """
    sign, _ = check_objective(name)
    return _checks.check_installed("keras_tuner", "tuner").Objective(name, "max" if sign > 0 else "min")


def check_objective(objective):
    """Returns the sign (1 if larger is better, else −1) and the arguments with which the monitor writes this key."""
    if isinstance(objective, str) and objective in SIGNS:
        return SIGNS[objective], {}
    with contextlib.suppress(ValueError):
        far = float(str(objective).removeprefix(TAR))
        if 0 < far < 1 and objective == f"{TAR}{far:g}":
            return 1, {"far": far}
    raise ValueError(f"`objective` must be one of {', '.join(SIGNS)} or {TAR}0.01 (any rate); got {objective!r}")


def sign_of(objective):
    """1 if a larger value of KerasTuner's `objective` is better, else −1."""
    return 1 if objective.direction == "max" else -1


def keys_of(objective):
    """The log keys of KerasTuner's `objective`: one, or several for a `MultiObjective`."""
    return list(getattr(objective, "name_to_direction", {objective.name: objective.direction}))


def check_known(objective):
    """Returns the monitor's arguments, `{"far": rates}` or `{}`; raises for a key or direction that is not its own."""
    directions = getattr(objective, "name_to_direction", {objective.name: objective.direction})
    rates = []
    for name, direction in directions.items():
        sign, far = check_objective(name)
        rates += far.values()
        known = "max" if sign > 0 else "min"
        if direction != known:
            hint = "Use keras_siamese.tuning.objective(name), which sets the direction"
            raise ValueError(f"`objective` must have direction {known!r} for {name!r}; got {direction!r}. {hint}")
    return {"far": tuple(rates)} if rates else {}
