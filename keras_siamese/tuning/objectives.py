"""Objectives: the keys that a search can go by, and which way each is better.

Contract: the keys are those that `VerificationMonitor` writes, and "loss". KerasTuner cannot tell the direction of a
key it does not know, so it takes them as its own `Objective`. Imports `_checks`.

    tuner = keras_tuner.RandomSearch(hypermodel, objective=objective("val_tar@far=0.01"), max_trials=20)
"""

import contextlib

from keras_siamese import _checks

SIGNS = {"val_eer": -1, "val_auc": 1, "val_verification_accuracy": 1, "val_d_prime": 1, "loss": -1}  # 1: more is better
TAR = "val_tar@far="  # and a rate; more is better


def objective(name):
    """KerasTuner's `Objective` of a key, with its direction.

    Args:
        name: "val_eer" or "loss", less is better; "val_auc", "val_verification_accuracy", "val_d_prime" or
            "val_tar@far=0.01" (or another rate), more is better. "val_threshold" is written and is neither.

    Raises:
        ValueError: for another name, listing these.

    >>> objective("val_auc").direction
    'max'
    """
    sign, _ = check_objective(name)
    return _checks.check_installed("keras_tuner", "tuner").Objective(name, "max" if sign > 0 else "min")


def check_objective(objective):
    """Returns the sign, 1 if more is better or else −1, and what the monitor must be told to write this key."""
    if isinstance(objective, str) and objective in SIGNS:
        return SIGNS[objective], {}
    with contextlib.suppress(ValueError):
        far = float(str(objective).removeprefix(TAR))
        if 0 < far < 1 and objective == f"{TAR}{far:g}":
            return 1, {"far": far}
    raise ValueError(f"`objective` must be one of {', '.join(SIGNS)} or {TAR}0.01 (any rate); got {objective!r}")


def sign_of(objective):
    """1 if more of KerasTuner's `objective` is better, or else −1."""
    return 1 if objective.direction == "max" else -1


def keys_of(objective):
    """The keys of the logs that KerasTuner's `objective` reads: one, or several of a `MultiObjective`."""
    return list(getattr(objective, "name_to_direction", {objective.name: objective.direction}))


def check_known(objective):
    """Returns `{"far": rates}` or `{}` for the monitor, if it writes every key of KerasTuner's `objective`, and in that
    direction."""
    directions = getattr(objective, "name_to_direction", {objective.name: objective.direction})
    rates = []
    for name, direction in directions.items():
        sign, far = check_objective(name)
        rates += far.values()
        known = "max" if sign > 0 else "min"
        if direction != known:
            hint = "keras_siamese.tuning.objective(name) knows it"
            raise ValueError(f"`objective` must have direction {known!r} for {name!r}; got {direction!r}. {hint}")
    return {"far": tuple(rates)} if rates else {}
