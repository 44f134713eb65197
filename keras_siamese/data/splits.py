"""Splits and folds whose parts share no identity.

Contract: samples are a source (see `sources`), labels `(n,)` integers or strings. Fractions and folds divide
*identities*, because a score on identities seen in training says little about new ones. Users and `tuning` use this
module.

    train, valid, test = split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)   # each (x_part, labels_part)
    for fit_rows, held_out_rows in IdentityKFold(3).split(x, labels): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_siamese._checks import check_integer, check_labels, check_number
from keras_siamese._types import ArrayLike, Samples
from keras_siamese.data.sources import check_source, count_samples, encode, subset


def split_identities(
    x: Samples,
    labels: ArrayLike,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    stratify: bool = False,
    seed: int = 0,
) -> tuple[tuple[Any, np.ndarray], ...]:
    """Splits samples into parts that share no identity.

    Args:
        x: array `(n, …)`, dict (also nested) of arrays `(n, …)`, or another source. Parts of a lazily read source, such
            as an `ImageFolder`, are views.
        labels: identities `(n,)`, integers or strings.
        fractions: share of the *identities* in each part, each in (0, 1], with sum 1. Each part gets a whole number of
            identities, at least one. Its share of samples depends on how many these identities have.
        stratify: whether large and small identities are shared out alike, so each part also has about its fraction of
            the samples; otherwise identities are drawn at random.
        seed: integer ≥ 0; decides which identities each part gets.

    Returns:
        A tuple with one `(x_part, labels_part)` for each fraction. Samples keep their order, labels their values.

    Raises:
        ValueError: if there are fewer identities than parts, or `fractions` does not sum to 1.

    >>> x, labels = np.arange(20), np.repeat(["ada", "bo", "cy", "di", "eve"], 4)
    >>> (train_x, train_labels), (test_x, test_labels) = split_identities(x, labels, (0.8, 0.2))
    >>> len(train_x), len(test_x), set(train_labels) & set(test_labels)
    (16, 4, set())
    """
    if not np.iterable(fractions):
        raise TypeError(f"`fractions` must be a tuple of the parts' shares; got {fractions!r}")
    limits = {"low": 0, "high": 1, "open_low": True}
    fractions = [check_number(f"fractions[{i}]", value, **limits) for i, value in enumerate(fractions)]
    if abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"`fractions` must sum to 1; got {fractions}, which sums to {sum(fractions):g}")
    x = check_source("x", x)
    labels = check_labels("labels", labels, length=count_samples(x))
    rng = np.random.default_rng(check_integer("seed", seed, low=0))
    identities, codes = encode(labels)
    sizes = _whole_parts(len(identities), np.array(fractions) / sum(fractions))
    if stratify:
        part = _deal(rng, np.bincount(codes), sizes)[codes]
    else:
        part = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))[codes]
    rows = [np.flatnonzero(part == number) for number in range(len(sizes))]
    return tuple((subset(x, chosen), labels[chosen]) for chosen in rows)


def _whole_parts(total, fractions):
    """Divides `total` identities by largest remainder; an empty part takes one from the largest."""
    if total < len(fractions):
        wanted = f"at least one identity for each of the {len(fractions)} parts"
        raise ValueError(f"`labels` must have {wanted}; got {total} identities")
    exact = total * fractions
    sizes = np.floor(exact).astype(int)
    by_remainder = np.argsort(sizes - exact, kind="stable")
    sizes[by_remainder[: total - sizes.sum()]] += 1
    while not sizes.all():
        sizes[np.argmax(sizes)] -= 1
        sizes[np.argmin(sizes)] += 1
    return sizes


def _deal(rng, samples, sizes):
    """The part of each identity `(K,)`, given its number of samples and how many identities each part gets (`sizes`).

    Identities are taken by decreasing number of samples (`rng` orders equal ones), and each goes to the part that is
    farthest behind its share.
    """
    part, dealt = np.empty(len(samples), dtype=np.intp), np.zeros(len(sizes))
    for turn, identity in enumerate(np.lexsort((rng.random(len(samples)), -samples)), start=1):
        behind = sizes * (turn / len(samples)) - dealt
        part[identity] = chosen = np.argmax(np.where(dealt < sizes, behind, -np.inf))
        dealt[chosen] += 1
    return part


class IdentityKFold:
    """Cross-validation folds that share no identity and have nearly the same number of samples.

    It is a splitter for scikit-learn's `cv=`. It uses scikit-learn's `GroupKFold`, which gives the largest remaining
    identity to the smallest fold; `GroupKFold(shuffle=True)` would not balance the folds. So the seed only orders
    identities with the same number of samples; if all numbers differ, it has no effect.

    Args:
        n_splits: number of folds, ≥ 2.
        shuffle: whether `seed` orders such identities; otherwise their labels do.
        seed: integer ≥ 0.
        stratify: whether the folds have the same number of identities, of similar sizes, instead of the same number of
            samples; useful if a few identities have most of the samples.

    >>> labels = np.repeat([7, 8, 9, 10, 11, 12], 3)
    >>> for train, test in IdentityKFold(n_splits=3).split(labels, labels):
    ...     print(len(train), len(test), set(labels[train]) & set(labels[test]))
    12 6 set()
    12 6 set()
    12 6 set()
    """

    def __init__(self, n_splits: int = 3, shuffle: bool = True, seed: int = 0, stratify: bool = False) -> None:
        self.n_splits = check_integer("n_splits", n_splits, low=2)
        self.shuffle = bool(shuffle)
        self.seed = check_integer("seed", seed, low=0)
        self.stratify = bool(stratify)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds; scikit-learn passes the arguments, which are ignored."""
        return self.n_splits

    def split(
        self, X: Any, y: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields `(train, test)` row indices, ascending, for each fold.

        Args:
            X: samples; ignored.
            y: identity labels `(n,)`, integers or strings.
            groups: identity labels, if `y` has something else; they take precedence.
        """
        from sklearn.model_selection import GroupKFold, PredefinedSplit  # slow to import

        name, labels = ("y", y) if groups is None else ("groups", groups)
        if labels is None:
            raise ValueError("`y` or `groups` must be the identity labels (n,); got None for both")
        identities, codes = encode(check_labels(name, labels))
        if len(identities) < self.n_splits:
            raise ValueError(f"`n_splits` must be at most the {len(identities)} identities; got {self.n_splits}")
        if self.stratify:
            sizes = np.bincount(np.arange(len(identities)) % self.n_splits)
            rng = np.random.default_rng(self.seed if self.shuffle else 0)
            yield from PredefinedSplit(_deal(rng, np.bincount(codes), sizes)[codes]).split()
            return
        if self.shuffle:
            codes = np.random.default_rng(self.seed).permutation(len(identities))[codes]
        yield from GroupKFold(self.n_splits).split(codes, groups=codes)

    def __repr__(self) -> str:
        options = f"n_splits={self.n_splits}, shuffle={self.shuffle}, seed={self.seed}, stratify={self.stratify}"
        return f"IdentityKFold({options})"
