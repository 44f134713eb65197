"""Splits and folds in which no identity stands on two sides.

Contract: samples are a source (see `sources`), labels `(n,)` integers or strings. Fractions and folds divide
*identities*: a verification score on identities that were trained on says little about new ones. `tuning` and users
import this module.

    train, valid, test = split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)   # each (x_part, labels_part)
    for fit_rows, held_out_rows in IdentityKFold(3).split(x, labels): ...
"""

import numpy as np

from keras_siamese._checks import check_integer, check_labels, check_number
from keras_siamese.data.sources import check_source, count_samples, encode, subset


def split_identities(x, labels, fractions=(0.7, 0.15, 0.15), *, stratify=False, seed=0):
    """Splits samples into parts that share no identity.

    Args:
        x: array `(n, …)`, or a dict (nested at will) of arrays `(n, …)`, or another source: of one that is read
            lazily, as `ImageFolder`, the parts are views.
        labels: identities `(n,)`, integers or strings.
        fractions: share of the *identities* that each part gets, each in (0, 1], summing to 1. They are rounded to
            whole identities, at least one a part; the share of samples follows from what these identities have.
        stratify: whether every part gets its share of large and of small identities, so that its share of samples
            follows as well; otherwise the draw is free.
        seed: integer ≥ 0, which identities go where.

    Returns:
        A tuple with one `(x_part, labels_part)` for each fraction. Samples keep their order, labels their values.

    Raises:
        ValueError: if there are fewer identities than parts, or `fractions` does not sum to 1.

    >>> x, labels = np.arange(20), np.repeat(["ada", "bo", "cy", "di", "eve"], 4)
    >>> (train_x, train_labels), (test_x, test_labels) = split_identities(x, labels, (0.8, 0.2))
    >>> len(train_x), len(test_x), set(train_labels) & set(test_labels)
    (16, 4, set())
    """
    fractions = _check_fractions(fractions)
    x = check_source("x", x)
    labels = check_labels("labels", labels, length=count_samples(x))
    rng = np.random.default_rng(check_integer("seed", seed, low=0))
    identities, codes = encode(labels)
    sizes = _whole_parts(len(identities), fractions)
    if stratify:
        part = _deal(rng, np.bincount(codes), sizes)[codes]
    else:
        part = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))[codes]
    rows = [np.flatnonzero(part == number) for number in range(len(sizes))]
    return tuple((subset(x, chosen), labels[chosen]) for chosen in rows)


def _check_fractions(fractions):
    fractions = [
        check_number(f"fractions[{i}]", value, low=0, high=1, open_low=True) for i, value in enumerate(fractions)
    ]
    if abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"`fractions` must sum to 1; got {fractions}, which sums to {sum(fractions):g}")
    return np.array(fractions) / sum(fractions)


def _whole_parts(total, fractions):
    """Divides `total` identities by largest remainder; a part left without any takes one from the largest."""
    if total < len(fractions):
        raise ValueError(
            f"`labels` must hold at least one identity for each of the {len(fractions)} parts; got {total} identities"
        )
    exact = total * fractions
    sizes = np.floor(exact).astype(int)
    by_remainder = np.argsort(sizes - exact, kind="stable")
    sizes[by_remainder[: total - sizes.sum()]] += 1
    while not sizes.all():
        sizes[np.argmax(sizes)] -= 1
        sizes[np.argmin(sizes)] += 1
    return sizes


def _deal(rng, samples, sizes):
    """The part of each identity `(K,)`: from the one with most samples on, each goes to the part that is most behind.

    Args:
        rng: NumPy generator, which decides among identities with equally many samples.
        samples: of each identity `(K,)`.
        sizes: identities that each part gets.
    """
    part, dealt = np.empty(len(samples), dtype=np.intp), np.zeros(len(sizes))
    for turn, identity in enumerate(np.lexsort((rng.random(len(samples)), -samples)), start=1):
        behind = sizes * (turn / len(samples)) - dealt
        part[identity] = chosen = np.argmax(np.where(dealt < sizes, behind, -np.inf))
        dealt[chosen] += 1
    return part


class IdentityKFold:
    """Cross-validation folds that share no identity, with nearly equally many samples a fold.

    A splitter in scikit-learn's sense, so it serves as `cv=` there. The work is done by its `GroupKFold`, which gives
    the largest identity left to the emptiest fold; its own `shuffle` (1.6 and later) would give the balance up. So the
    seed decides among identities with equally many samples, and where no two have, the folds do not depend on it.

    Args:
        n_splits: number of folds, ≥ 2.
        shuffle: whether `seed` decides ties; otherwise the order of the labels does.
        seed: integer ≥ 0.
        stratify: whether the folds have equally many identities, with alike numbers of samples each, in place of
            equally many samples: for few identities that are most of the data.

    >>> labels = np.repeat([7, 8, 9, 10, 11, 12], 3)
    >>> for train, test in IdentityKFold(n_splits=3).split(labels, labels):
    ...     print(len(train), len(test), set(labels[train]) & set(labels[test]))
    12 6 set()
    12 6 set()
    12 6 set()
    """

    def __init__(self, n_splits=3, shuffle=True, seed=0, stratify=False):
        self.n_splits = check_integer("n_splits", n_splits, low=2)
        self.shuffle = bool(shuffle)
        self.seed = check_integer("seed", seed, low=0)
        self.stratify = bool(stratify)

    def get_n_splits(self, X=None, y=None, groups=None):
        """The number of folds; the arguments are there for scikit-learn's sake."""
        return self.n_splits

    def split(self, X, y=None, groups=None):
        """Yields `(train, test)` row indices, ascending, one pair a fold.

        Args:
            X: samples; not looked at.
            y: identity labels `(n,)`, integers or strings.
            groups: identity labels where `y` holds something else; they come before `y`.
        """
        from sklearn.model_selection import GroupKFold  # heavy: the package's import stays light

        name, labels = ("y", y) if groups is None else ("groups", groups)
        if labels is None:
            raise ValueError("`y` must hold the identity labels (n,), or `groups` must; got None for both")
        identities, codes = encode(check_labels(name, labels))
        if len(identities) < self.n_splits:
            raise ValueError(f"`n_splits` must be at most the {len(identities)} identities; got {self.n_splits}")
        if self.stratify:
            sizes = np.bincount(np.arange(len(identities)) % self.n_splits)
            rng = np.random.default_rng(self.seed if self.shuffle else 0)
            fold = _deal(rng, np.bincount(codes), sizes)[codes]
            for number in range(self.n_splits):
                yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            return
        if self.shuffle:
            codes = np.random.default_rng(self.seed).permutation(len(identities))[codes]
        yield from GroupKFold(self.n_splits).split(codes, groups=codes)

    def __repr__(self):
        options = f"n_splits={self.n_splits}, shuffle={self.shuffle}, seed={self.seed}, stratify={self.stratify}"
        return f"IdentityKFold({options})"
