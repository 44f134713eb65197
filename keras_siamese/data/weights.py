"""Weights against class imbalance: of pair labels for `class_weight`, of samples and pairs for `sample_weight`.

Contract: labels `(n,)` in, weights out whose mean over these labels is 1, so a loss keeps its scale. The rule is
scikit-learn's "balanced": n / (classes · samples of the class), so all classes have the same sum of weights. `pairs`
and users import this module.

    left, right, same = sequence.pairs()
    model.fit(sequence, class_weight=pair_class_weights(same))
"""

from __future__ import annotations

import numpy as np

from keras_siamese._checks import check_choice, check_labels, check_same
from keras_siamese._types import ArrayLike

KINDS = ("balanced", "identities")


def pair_class_weights(same: ArrayLike) -> dict[int, float]:
    """Weights of the two pair labels, w_y = n / (2 · n_y), for `fit(class_weight=…)` or `WeightedBinaryCrossentropy`.

    The weights `{0: w0, 1: w1}` are those of scikit-learn's `compute_class_weight("balanced", …)`; their keys are the
    values in `same`. With `similar_label=0`, pass the labels that the loss gets: those of the batches, or `1 − same` of
    `PairSequence.pairs()`.

    Args:
        same: pair labels `(n,)`, booleans or 0 and 1, of both kinds.

    Raises:
        ValueError: if one of the two labels is missing, or there is another one.

    >>> pair_class_weights([1, 0, 0, 0])
    {0: 0.666..., 1: 2.0}
    """
    same = check_same("same", same)
    ones = int(np.count_nonzero(same))
    zeros = len(same) - ones
    if not (zeros and ones):
        raise ValueError(f"`same` must hold both labels; got {zeros} zeros and {ones} ones")
    return {0: len(same) / (2 * zeros), 1: len(same) / (2 * ones)}


def sample_weights(labels: ArrayLike) -> np.ndarray:
    """Weights of samples that let all identities count the same: n / (identities · samples of the identity).

    The weights are float32 `(n,)` with mean 1, for `fit(sample_weight=…)`. They are those of scikit-learn's
    `compute_sample_weight("balanced", labels)`.

    Args:
        labels: identities `(n,)`, integers or strings.

    >>> sample_weights(["ada", "bo", "bo", "bo"]).tolist()
    [2.0, 0.666..., 0.666..., 0.666...]
    """
    return _balanced(check_labels("labels", labels)).astype("float32")


def pair_sample_weights(same, left_codes, right_codes, kind):
    """Weights of pairs, float32 `(n,)` with mean 1, from `same` and the identities of both sides, each `(n,)`.

    - "balanced": n / (2 · n_y), so genuine and impostor pairs have the same sum; all 1 if there is one kind only.
    - "identities": (w_left + w_right) / 2 with w = 2n / (identities · occurrences of the identity on both sides), so
      all identities have the same sum of w over their occurrences.

    >>> pair_sample_weights([True, False, False], [0, 0, 1], [0, 1, 2], "identities").tolist()
    [0.666..., 0.833..., 1.5]
    """
    check_choice("kind", kind, KINDS)
    same = check_same("same", same)
    if kind == "balanced":
        return _balanced(same).astype("float32")
    left = check_labels("left_codes", left_codes, length=len(same))
    right = check_labels("right_codes", right_codes, length=len(same))
    return _balanced(np.concatenate([left, right])).reshape(2, -1).mean(axis=0).astype("float32")


def _balanced(labels):
    from sklearn.utils.class_weight import compute_sample_weight  # slow to import

    if len(labels) == 0:
        raise ValueError("`labels` must have at least one entry; got none")
    return compute_sample_weight("balanced", labels)
