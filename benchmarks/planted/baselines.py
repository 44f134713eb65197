"""Baselines: rules of published tools, and simple rules, that say whether a run raises an alarm from the same logs.

Each baseline is a function of a record. Of tools that use gradients or activations, only the rules are used that a log
of losses and figures allows. A tool that needs an accuracy gets 1 − the held-out EER.
"""

import math
from itertools import pairwise


def terminate_on_nan(record):
    """Keras's `TerminateOnNaN`: a loss that is not finite."""
    return not all(math.isfinite(loss) for loss in record["history"]["loss"])


def umlaut_overfitting(record):
    """UMLAUT's rule for overfitting (Schoop, Huang, Hartmann, CHI 2021).

    In at least one epoch the training loss falls and the validation loss rises.
    """
    train, valid = record["logs"]["loss"], record["logs"]["val_loss"]
    return any(b < a and d > c for (a, b), (c, d) in zip(pairwise(train), pairwise(valid), strict=True))


def autotrainer(record):
    """AutoTrainer's rules on losses and accuracies, with its default values (Zhang and others, ICSE 2021).

    The loss is not finite; or the accuracy falls by .03 or more in a fifth of the epochs; or it stays below .7 and
    gains at most .01 in each epoch.
    """
    accuracy = [1 - eer for eer in record["history"]["eer"] if math.isfinite(eer)]
    if terminate_on_nan(record) or len(accuracy) < 2:
        return True
    steps = [b - a for a, b in pairwise(accuracy)]
    oscillates = sum(step <= -0.03 for step in steps) >= 0.2 * len(steps)
    return oscillates or (max(accuracy) < 0.7 and max(steps) <= 0.01)


def low_correlation(record):
    """The correlation of the loss and the held-out EER over the epochs is less than ½."""
    loss, eer = record["history"]["loss"], record["history"]["eer"]
    pairs = [(a, b) for a, b in zip(loss, eer, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3:
        return True
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    moves = [(a - means[0], b - means[1]) for a, b in pairs]
    spread = math.sqrt(sum(a * a for a, _ in moves) * sum(b * b for _, b in moves))
    return spread == 0 or sum(a * b for a, b in moves) / spread < 0.5


def always(record):
    """An alarm on every run."""
    return True


BASELINES = (terminate_on_nan, umlaut_overfitting, autotrainer, low_correlation, always)
