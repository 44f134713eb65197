"""Weights that make up for uneven classes: of pair labels for `class_weight`, of samples and pairs for `sample_weight`.

Contract: labels go in, `(n,)`, and weights come out whose mean over these labels is 1, so that a loss keeps its scale.
The rule is scikit-learn's "balanced": n / (classes · count of the class), so every class has the same sum of weights;
its functions do the counting. `pairs` and users import this module.

    left, right, same = sequence.pairs()
    model.fit(sequence, class_weight=pair_class_weights(same))
"""

import numpy as np

from keras_siamese._checks import check_choice, check_labels, check_same

KINDS = ("balanced", "identities")


def pair_class_weights(same):
    """Weights of the two pair labels, w_y = n / (2 · n_y), for `fit(class_weight=…)` or `WeightedBinaryCrossentropy`.

    Equal to scikit-learn's `compute_class_weight("balanced", …)`. The keys are the values in `same`, whichever of them
    means "same identity": with `similar_label=0` pass the labels as the loss gets them (a batch's, or `1 − same` of
    `PairSequence.pairs()`), and the weights belong to those.

    Args:
        same: pair labels `(n,)`, booleans or 0 and 1, of both kinds.

    Returns:
        `{0: w0, 1: w1}`, floats.

    Raises:
        ValueError: if one of the two labels does not occur, or another one does.

    >>> pair_class_weights([1, 0, 0, 0])
    {0: 0.666..., 1: 2.0}
    """
    from sklearn.utils.class_weight import compute_class_weight  # heavy: the package's import stays light

    same = check_same("same", same).astype(int)
    ones = int(np.count_nonzero(same))
    if not 0 < ones < len(same):
        raise ValueError(f"`same` must hold both labels to weigh them; got {len(same) - ones} zeros and {ones} ones")
    zero, one = compute_class_weight("balanced", classes=np.array([0, 1]), y=same)
    return {0: float(zero), 1: float(one)}


def sample_weights(labels):
    """Weights of samples by which every identity counts the same: n / (identities · samples of its identity).

    Equal to scikit-learn's `compute_sample_weight("balanced", labels)`.

    Args:
        labels: identities `(n,)`, integers or strings.

    Returns:
        float32 `(n,)` of mean 1, as `fit(sample_weight=…)` takes it.

    >>> sample_weights(["ada", "bo", "bo", "bo"]).tolist()
    [2.0, 0.666..., 0.666..., 0.666...]
    """
    return _balanced(check_labels("labels", labels)).astype("float32")


def pair_sample_weights(same, left_codes, right_codes, kind):
    """Weights of the pairs of a table, of mean 1 over it.

    - "balanced": n / (2 · n_y), so genuine and impostor pairs have the same sum; all 1 where there is one kind only.
    - "identities": (w_left + w_right) / 2 with w = 2n / (identities · appearances of the identity on either side), so
      that every identity has the same sum of w over its appearances.

    Args:
        same: booleans `(n,)`, True = same identity.
        left_codes: identities of the left samples `(n,)`, integers.
        right_codes: identities of the right samples `(n,)`, integers.
        kind: "balanced" or "identities".

    Returns:
        float32 `(n,)`.

    >>> pair_sample_weights([True, False, False], [0, 0, 1], [0, 1, 2], "identities").tolist()
    [0.666..., 0.833..., 1.5]
    """
    check_choice("kind", kind, KINDS)
    same = check_same("same", same)
    if kind == "balanced":
        return _balanced(same).astype("float32")
    sides = [
        check_labels(name, codes, length=len(same))
        for name, codes in (("left_codes", left_codes), ("right_codes", right_codes))
    ]
    return _balanced(np.concatenate(sides)).reshape(2, -1).mean(axis=0).astype("float32")


def _balanced(labels):
    from sklearn.utils.class_weight import compute_sample_weight

    if len(labels) == 0:
        raise ValueError("labels must hold at least one entry to be weighed; got none")
    return compute_sample_weight("balanced", labels)
