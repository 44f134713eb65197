"""Baselines: rules of published tools, and simple rules, judged on the same logs.

Each baseline is a function from a record to the list of what it alarms on: the names of our causes that mean the same,
or "" for an alarm that names none. No alarm is an empty list. Of tools that use gradients or activations, only the
rules are used that a log of losses and figures allows. A tool that needs an accuracy gets 1 − the EER.
"""

import math
from itertools import pairwise


def terminate_on_nan(record):
    """Keras's `TerminateOnNaN`: a loss that is not finite."""
    return [] if all(math.isfinite(loss) for loss in record["history"]["loss"]) else ["nan_gradient"]


def umlaut_overfitting(record):
    """UMLAUT's rule for overfitting: in an epoch the training loss falls and the validation loss rises.

    Schoop, Huang, Hartmann, *UMLAUT: Debugging Deep Learning Programs using Program Structure and Model Behavior*, CHI
    2021, https://doi.org/10.1145/3411764.3445538
    """
    train, valid = record["logs"]["loss"], record["logs"]["val_loss"]
    falls = any(b <= a and d > c for (a, b), (c, d) in zip(pairwise(train), pairwise(valid), strict=True))
    return ["memorising"] if falls else []


def umlaut(record):
    """UMLAUT's rules on inputs, losses and accuracies (same paper): inputs outside [−1, 1], a loss that is NaN,
    overfitting, and a validation accuracy above .95 or above that of training.

    Of the inputs, the root mean square is known. If it exceeds 1, some input does.
    """
    facts = record["facts"]["numbers"] if record["facts"] else {}
    accuracy = max((1 - eer for eer in record["history"]["eer"] if math.isfinite(eer)), default=0.0)
    rules = [
        (facts.get("input_scale", 0.0) > 1, "input_scale"),
        (bool(terminate_on_nan(record)), "nan_gradient"),
        (bool(umlaut_overfitting(record)), "memorising"),
        (accuracy > 0.95 or facts.get("eer", 0.0) < facts.get("train_eer", 0.0), "leakage"),
    ]
    return [name for alarms, name in rules if alarms]


def autotrainer(record):
    """AutoTrainer's rules on losses and accuracies, with its default values.

    The loss is not finite; or the accuracy falls by .03 or more in a fifth of the epochs; or it stays below .7 and
    gains at most .01 in each epoch. Zhang, Zhai, Ma, Shen, *AUTOTRAINER: An Automatic DNN Training Problem Detection
    and Repair System*, ICSE 2021, https://github.com/shiningrain/AUTOTRAINER
    """
    accuracy = [1 - eer for eer in record["history"]["eer"] if math.isfinite(eer)]
    if terminate_on_nan(record) or len(accuracy) < 2:
        return ["nan_gradient"]
    steps = [b - a for a, b in pairwise(accuracy)]
    oscillates = sum(step <= -0.03 for step in steps) >= 0.2 * len(steps)
    is_slow = max(accuracy) < 0.7 and max(steps) <= 0.01
    return ["learning_rate"] if oscillates or is_slow else []


def low_correlation(record):
    """The correlation of the loss and the held-out EER over the epochs is less than ½."""
    loss, eer = record["history"]["loss"], record["history"]["eer"]
    pairs = [(a, b) for a, b in zip(loss, eer, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(pairs) < 3:
        return [""]
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)]
    moves = [(a - means[0], b - means[1]) for a, b in pairs]
    spread = math.sqrt(sum(a * a for a, _ in moves) * sum(b * b for _, b in moves))
    return [""] if spread == 0 or sum(a * b for a, b in moves) / spread < 0.5 else []


def always(record):
    """An alarm on every run."""
    return [""]


BASELINES = (terminate_on_nan, umlaut_overfitting, umlaut, autotrainer, low_correlation, always)
