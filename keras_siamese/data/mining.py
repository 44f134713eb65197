"""Hard negatives as a table: for each sample the most similar samples of other identities.

Contract: embeddings `(n, dim)` and identities `(n,)` in, rows of triplets out, as arrays, a CSV file or a DataFrame, to
look at, or to train other programs on. `HardPairRefresh` uses hard negatives within `fit` without a table. The search
is exact and takes O(n · block) memory. Users use this module.

    found = mine_hard_negatives(encoder.predict(x), labels, per_anchor=3, margin=0.05)
    found.to_csv("triplets.csv", names=paths)
    pairs = from_pairs(x, *found.pairs())
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_siamese._checks import (
    check_column,
    check_installed,
    check_integer,
    check_labels,
    check_number,
    check_writable,
)
from keras_siamese._files import write_text
from keras_siamese._types import ArrayLike, DataFrame, StrPath
from keras_siamese.data.hardness import check_embeddings, check_ranks
from keras_siamese.data.sources import encode

BLOCK = 1 << 22  # similarities computed at a time
COLUMNS = ("anchor", "positive", "negative", "positive_similarity", "negative_similarity")


@dataclass(frozen=True, eq=False)
class HardNegatives:
    """The result of `mine_hard_negatives`: one row for each anchor and negative, the most similar negative first.

    Attributes:
        anchor, negative: `(m,)` rows of the embeddings.
        positive: `(m,)` the least similar other sample of the anchor's identity; −1 if there is none.
        positive_similarity, negative_similarity: `(m,)` their cosines with the anchor, in [−1, 1]; NaN if there is no
            positive.
        labels: `(n,)` the identities, as they were given.
        short: number of anchors that have fewer negatives than wanted.
    """

    anchor: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    positive_similarity: np.ndarray
    negative_similarity: np.ndarray
    labels: np.ndarray
    short: int

    def __len__(self) -> int:
        return len(self.anchor)

    def __repr__(self) -> str:
        of = f"{len(np.unique(self.anchor))} of {len(self.labels)} samples, {self.short} with fewer than wanted"
        return f"HardNegatives({len(self)} negatives of {of})"

    def triplets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows `(anchor, positive, negative)`, `(k,)` each, of the anchors that have a positive."""
        has = self.positive >= 0
        return self.anchor[has], self.positive[has], self.negative[has]

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs `(left, right, same)`, `(k,)` each: each anchor once with its positive, and with all its negatives."""
        anchor, first = np.unique(self.anchor, return_index=True)
        positive = self.positive[first]
        anchor, positive = anchor[positive >= 0], positive[positive >= 0]
        left, right = np.concatenate([anchor, self.anchor]), np.concatenate([positive, self.negative])
        return left, right, np.arange(len(left)) < len(anchor)

    def columns(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The table as a dict of columns: those of the attributes, and the labels of anchor and negative.

        `names` `(n,)`, such as paths or texts, take the place of the row numbers.
        """
        table = {name: getattr(self, name) for name in COLUMNS}
        if names is not None:
            names = check_column("names", names, "name", "sample", len(self.labels))
            for side in COLUMNS[:3]:
                rows = table[side]
                table[side] = np.where(rows >= 0, names[rows].astype(object), None)
        return {**table, "label": self.labels[self.anchor], "negative_label": self.labels[self.negative]}

    def to_frame(self, names: Sequence[str] | None = None) -> DataFrame:
        """The table as a pandas `DataFrame`; `names` as in `columns`. Needs pandas."""
        return check_installed("pandas", "test").DataFrame(self.columns(names))

    def to_csv(self, path: StrPath, names: Sequence[str] | None = None) -> None:
        """Writes the table as a CSV file; `names` as in `columns`. A missing positive is an empty field."""
        path = check_writable("path", path)
        table, text = self.columns(names), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table)
        missing = self.positive < 0
        for name in ("positive", "positive_similarity"):
            table[name] = np.where(missing, None, table[name].astype(object))
        writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
        write_text(path, text.getvalue())


def mine_hard_negatives(
    embeddings: ArrayLike,
    labels: ArrayLike,
    per_anchor: int = 3,
    *,
    ranks: tuple[int, int] = (0, 100),
    margin: float | None = None,
    relative_margin: float | None = None,
    max_similarity: float | None = None,
    min_similarity: float | None = None,
) -> HardNegatives:
    """The most similar samples of other identities for each sample, by the cosine of their embeddings.

    A negative that is more similar to the anchor than the anchor's own positives may have a wrong label. The margins
    leave such negatives out: they compare with the least similar positive of the anchor, as sentence-transformers'
    `mine_hard_negatives` does. All limits are applied first; `ranks` then counts the negatives that remain.

    Args:
        embeddings: `(n, dim)`, finite.
        labels: `(n,)` identities, integers or strings, at least two.
        per_anchor: ≥ 1, negatives of each anchor.
        ranks: (lo, hi), 0 ≤ lo < hi: negatives have ranks lo … hi − 1 by falling similarity; the first `per_anchor` of
            them are taken.
        margin: m ≥ 0: a negative's similarity is at most that of the positive minus m. None sets no limit.
        relative_margin: r in [0, 1]: it is at most p − r·|p|, p the similarity of the positive. None sets no limit.
        max_similarity, min_similarity: limits in [−1, 1], or None. Anchors without a positive have only these.

    Returns:
        `HardNegatives`.

    Raises:
        ValueError: if embeddings are not finite, not `(n, dim)` or not one for each label, if there is only one
            identity, or if a number is out of range.

    >>> z = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.96, 0.28]])
    >>> found = mine_hard_negatives(z, ["ada", "ada", "bo", "bo"], per_anchor=1)
    >>> found.negative.tolist(), round(float(found.negative_similarity[0]), 2)
    ([3, 2, 1, 0], 0.96)
    >>> found = mine_hard_negatives(z, ["ada", "ada", "bo", "bo"], per_anchor=1, margin=0.1)
    >>> found.anchor.tolist(), found.negative.tolist()
    ([0, 2], [2, 0])
    """
    names = check_labels("labels", labels)
    identities, codes = encode(names)
    if len(identities) < 2:
        raise ValueError(f"`labels` must name at least two identities; got {len(identities)}")
    embeddings = check_embeddings("embeddings", embeddings, len(codes))
    per_anchor, (low, high) = check_integer("per_anchor", per_anchor, low=1), check_ranks("ranks", ranks)
    limits = {"margin": (margin, 0, 2), "relative_margin": (relative_margin, 0, 1)}
    limits |= {"max_similarity": (max_similarity, -1, 1), "min_similarity": (min_similarity, -1, 1)}
    for name, (value, least, most) in limits.items():
        if value is not None:
            check_number(name, value, low=least, high=most)
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    unit = (embeddings / np.where(norms > 0, norms, 1)).astype(np.float32)

    keep = min(high, low + per_anchor)
    rows, cells = max(1, BLOCK // len(codes)), []
    positive, nearest = np.full(len(codes), -1), np.full(len(codes), np.nan, np.float32)
    for start in range(0, len(codes), rows):
        block = np.arange(start, min(start + rows, len(codes)))
        similarity = np.clip(unit[block] @ unit.T, -1, 1)  # rounding takes that of equal samples above 1
        own = codes[block, None] == codes
        positive[block], nearest[block] = least_similar(similarity, own, block)
        similarity[own] = -np.inf
        most = most_allowed(nearest[block], margin, relative_margin, max_similarity)
        similarity[similarity > most[:, None]] = -np.inf
        if min_similarity is not None:
            similarity[similarity < min_similarity] = -np.inf
        found = most_similar(similarity, keep)[:, low:]
        value = np.take_along_axis(similarity, found, axis=1)
        at, column = np.nonzero(value > -np.inf)
        cells.append((block[at], found[at, column], value[at, column]))
    anchor, negative, value = (np.concatenate(part) for part in zip(*cells, strict=True))
    short = int(np.count_nonzero(np.bincount(anchor, minlength=len(codes)) < per_anchor))
    return HardNegatives(anchor, positive[anchor], negative, nearest[anchor], value, names, short)


def least_similar(similarity, own, rows):
    """The columns of the least similar of each row's `own`, without itself, and their values; −1 and NaN if none."""
    others = np.where(own, similarity, np.inf)
    others[np.arange(len(rows)), rows] = np.inf
    column = others.argmin(axis=1)
    value = others[np.arange(len(rows)), column]
    has = value < np.inf
    return np.where(has, column, -1), np.where(has, value, np.nan).astype(np.float32)


def most_allowed(positive, margin, relative_margin, max_similarity):
    """The largest similarity of a negative for each similarity `positive` `(rows,)`, NaN where there is none."""
    limits = [np.full(len(positive), np.inf if max_similarity is None else max_similarity)]
    limits += [] if margin is None else [positive - margin]
    limits += [] if relative_margin is None else [positive - relative_margin * np.abs(positive)]
    return np.fmin.reduce(limits)


def most_similar(similarity, count):
    """The columns `(rows, ≤ count)` of the largest values of each row, in falling order; equal ones by column."""
    count = min(count, similarity.shape[1])
    found = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    found.sort(axis=1)
    order = np.argsort(-np.take_along_axis(similarity, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
