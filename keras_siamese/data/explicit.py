"""Pairs from a list, such as the pairs.txt of Labeled Faces in the Wild.

Contract: `ExplicitPairs` takes the rows of pairs and has the interface of `PairSequence`: batches `((left, right),
same)`, `pairs(epoch)`, and `frozen` for validation. Users and `scoring` use this module.

    lfw = read_lfw_pairs("pairs.txt", "lfw", image_size=(112, 112))
    held_out = lfw.fold == 9
    valid = from_pairs(lfw.x, *lfw.pairs(held_out), labels=lfw.labels, frozen=True)
    train = from_pairs(lfw.x, *lfw.pairs(~held_out), batch_size=64, seed=0)
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keras_siamese._checks import as_array, check_choice, check_integer, check_labels, check_same
from keras_siamese._reading import text_of
from keras_siamese._types import ArrayLike, Augment, DatasetOptions, Samples, SequenceOptions, StrPath, Unpack
from keras_siamese.data.images import ImageFiles, check_folder
from keras_siamese.data.pairs import PairBatches
from keras_siamese.data.sources import check_source, count_samples, encode, first_few

_NUMBER = r"((?=0*[1-9])[0-9]{1,9})"  # above 0
_NAME = r"((?!\.)[^\s/\\]+)"  # not a path
_GENUINE = re.compile(rf"{_NAME}\s+{_NUMBER}\s+{_NUMBER}")
_IMPOSTOR = re.compile(rf"{_NAME}\s+{_NUMBER}\s+{_NAME}\s+{_NUMBER}")


class ExplicitPairs(PairBatches):
    """A `keras.utils.PyDataset` of listed pairs, each once an epoch; a batch depends only on `(seed, epoch, index)`.

    Each epoch has the pairs in a new random order. A frozen sequence keeps the given order, for validation.

    Args:
        x: samples `(n, …)`, an array, dict or other source, as in `PairSequence`.
        left, right: rows of `x`, integers `(pairs,)` in [0, n).
        same: `(pairs,)`, whether both samples show the same identity: booleans, or `similar_label` for "same".
        labels: identities `(n,)` of the samples, integers or strings, if known. They must agree with `same`, and they
            give scores confidence intervals over identities.
        similar_label: 1, or 0 for a project in which 0 means "same", both in `same` and in the batches.
        batch_size, augment, frozen, seed, **kwargs: as in `PairSequence`.

    Attributes:
        x: the source.
        labels, identities: as in `PairSequence`; they exist only if `labels` were given.
        pairs_per_epoch, positive_fraction: the number of pairs, and the share of genuine ones.

    Raises:
        ValueError: if lengths differ, if a row is not in `x`, if `same` is not 0 or 1 or contradicts `labels`, or if a
            sample paired with itself is not "same". The message names the pairs.
        TypeError: for an unknown option; the message lists the known ones.

    >>> x = np.arange(6.0)
    >>> sequence = ExplicitPairs(x, [0, 2, 4], [1, 3, 0], [1, 1, 0], batch_size=2, frozen=True)
    >>> sequence
    ExplicitPairs(3 pairs of 6 samples, 66.7% same, in 2 batches of 2; frozen)
    >>> (left, right), same = sequence[0]
    >>> left.tolist(), right.tolist(), same.tolist()
    ([0.0, 2.0], [1.0, 3.0], [1.0, 1.0])
    """

    def __init__(
        self,
        x: Samples,
        left: ArrayLike,
        right: ArrayLike,
        same: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        batch_size: int = 32,
        augment: Augment | None = None,
        frozen: bool = False,
        similar_label: int = 1,
        seed: int = 0,
        **kwargs: Unpack[DatasetOptions],
    ) -> None:
        super().__init__(augment=augment, frozen=frozen, seed=seed, **kwargs)
        self.x = check_source("x", x)
        n = count_samples(self.x)
        self.similar_label = check_choice("similar_label", similar_label, (0, 1))
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        left, right = check_row_numbers("left", left, n), check_row_numbers("right", right, n)
        if len(left) != len(right) or not len(left):
            raise ValueError(f"`left` and `right` must have the same length ≥ 1; got {len(left)} and {len(right)}")
        is_boolean = as_array("same", same).dtype == bool
        same = check_same("same", same, length=len(left))
        same = same if is_boolean or similar_label == 1 else ~same
        refuse_pairs("`same` must be true if `left` and `right` are the same row", (left == right) & ~same)
        if labels is not None:
            self.identities, self.labels = encode(check_labels("labels", labels, length=n))
            refuse_pairs("`same` must agree with `labels`", (self.labels[left] == self.labels[right]) != same)
        self.pairs_per_epoch = self._count = len(same)
        self.positive_fraction = float(np.mean(same))
        self._given = left, right, same

    def _draw(self, epoch):
        if self.frozen:
            return self._given
        order = self.rng(epoch).permutation(self.pairs_per_epoch)
        return tuple(column[order] for column in self._given)

    def _what(self):
        return f"{self.pairs_per_epoch} pairs of {count_samples(self.x)} samples"


def from_pairs(
    x: Samples, left: ArrayLike, right: ArrayLike, same: ArrayLike, **options: Unpack[SequenceOptions]
) -> ExplicitPairs:
    """Makes an `ExplicitPairs` sequence of the rows `left` and `right` `(pairs,)` of `x` `(n, …)`.

    The arguments are those of `ExplicitPairs`: `same` `(pairs,)` says which pairs are genuine, and the options are
    `labels`, `batch_size`, `augment`, `frozen`, `similar_label`, `seed` and those of `keras.utils.PyDataset`.

    >>> from_pairs(np.arange(6.0), [0, 2, 4], [1, 3, 0], [1, 1, 0], batch_size=3)
    ExplicitPairs(3 pairs of 6 samples, 66.7% same, in 1 batches of 3; epoch 0)
    """
    return ExplicitPairs(x, left, right, same, **options)


def check_row_numbers(name, rows, n):
    """Returns row numbers `(pairs,)` of n samples as a new integer array."""
    rows = as_array(name, rows)
    if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
        raise ValueError(f"`{name}` must be integers of shape (pairs,); got {rows.dtype} of shape {rows.shape}")
    wrong = np.flatnonzero((rows < 0) | (rows >= n))
    if len(wrong):
        found = f"{rows[wrong[0]]} in pair {wrong[0]} ({len(wrong)} wrong in total)"
        raise ValueError(f"`{name}` must be rows of `x`, from 0 to {n - 1}; got {found}")
    return rows.astype(np.intp)


def refuse_pairs(expectation, wrong):
    """Raises an error that states the `expectation` and lists the pairs of the mask `wrong` `(pairs,)`, if any."""
    if wrong.any():
        pairs = first_few(np.flatnonzero(wrong).tolist())
        raise ValueError(f"{expectation}; this is not so for pairs {pairs} (counted from 0)")


@dataclass(frozen=True, eq=False, repr=False)
class LFWPairs:
    """The pairs of a pairs.txt and their images.

    Attributes:
        x: `ImageFiles` `(n, height, width, channels)`: each image in the pairs, once, sorted by name and number.
        left, right: rows of `x` `(pairs,)`, in the order of the file.
        same: `(pairs,)` bool, True = genuine.
        fold: `(pairs,)` integers 0 … folds − 1; all 0 in a file without folds.
        labels: `(n,)` the person in each image, strings.
    """

    x: ImageFiles
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    labels: np.ndarray

    def pairs(self, chosen: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(left, right, same)` of the pairs in the mask `chosen` `(pairs,)`, as `from_pairs` takes them."""
        return self.left[chosen], self.right[chosen], self.same[chosen]

    def __repr__(self) -> str:
        folds = len(np.unique(self.fold))
        people = len(np.unique(self.labels))
        return f"LFWPairs({len(self.same)} pairs in {folds} folds, of {len(self.x)} images of {people} people)"


def read_lfw_pairs(
    pairs_txt: StrPath,
    root: StrPath,
    image_size: tuple[int, int],
    color_mode: Literal["rgb", "grayscale", "rgba"] = "rgb",
    *,
    extension: str = ".jpg",
    interpolation: str = "bilinear",
    check: bool = True,
) -> LFWPairs:
    """Reads a pairs.txt of Labeled Faces in the Wild, with its images in the folder `root`, as `LFWPairs`.

    The first line has the number of folds and of pairs, "10 300". Each fold has that many genuine pairs, "name 1 4",
    and then as many impostor pairs, "name 1 other 2", separated by tabs or spaces. The files of View 1 have one fold,
    and only the number of pairs in the first line. Image 4 of a person is name/name_0004.jpg.

    Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild: A Database for Studying Face Recognition in
    Unconstrained Environments", 2007, http://vis-www.cs.umass.edu/lfw/lfw.pdf. The protocol of View 2: choose
    everything, also the threshold, on nine folds and measure on the tenth; repeat this for each fold.

    Args:
        pairs_txt: path of the file.
        root: the folder that holds a folder for each person.
        image_size: `(height, width)` to which every image is resized.
        color_mode, interpolation, check: as in `ImageFiles`.
        extension: the end of the images' names.

    Raises:
        ValueError: for malformed lines, with their numbers; for missing or unreadable images, with their paths.

    >>> import os, tempfile, PIL.Image
    >>> root = tempfile.mkdtemp()
    >>> for name, number in (("Ada", 1), ("Ada", 2), ("Bo", 1)):
    ...     os.makedirs(os.path.join(root, name), exist_ok=True)
    ...     PIL.Image.new("RGB", (8, 8)).save(os.path.join(root, name, f"{name}_{number:04d}.jpg"))
    >>> pairs_txt = os.path.join(root, "pairs.txt")
    >>> with open(pairs_txt, "w") as file:
    ...     _ = file.write("1\\t1\\nAda\\t1\\t2\\nAda\\t2\\tBo\\t1\\n")
    >>> lfw = read_lfw_pairs(pairs_txt, root, image_size=(4, 4))
    >>> lfw
    LFWPairs(2 pairs in 1 folds, of 3 images of 2 people)
    >>> lfw.left.tolist(), lfw.right.tolist(), lfw.same.tolist(), lfw.labels.tolist()
    ([0, 1], [1, 2], [True, False], ['Ada', 'Ada', 'Bo'])
    """
    lines = text_of(pairs_txt, f"`pairs_txt` {str(pairs_txt)!r}").rstrip().splitlines()
    left, right, same, fold = parse_lfw_lines(lines, os.fspath(pairs_txt))
    images = sorted({*left, *right})
    row = {image: i for i, image in enumerate(images)}
    root = check_folder("root", root)
    paths = [os.path.join(root, name, f"{name}_{number:04d}{extension}") for name, number in images]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        must = f"`root` must hold the {len(paths)} images that {str(pairs_txt)!r} names"
        raise ValueError(f"{must}; {len(missing)} missing: {first_few(missing)}")
    files = ImageFiles(paths, image_size, color_mode, root=root, interpolation=interpolation, check=check)
    left, right = (np.array([row[image] for image in side], dtype=np.intp) for side in (left, right))
    return LFWPairs(files, left, right, np.array(same), np.array(fold), np.array([name for name, _ in images]))


def parse_lfw_lines(lines, name):
    """Parses the `lines` of a pairs.txt: lists of left and right `(person, number)`, of same, and of folds."""
    header = lines[0].split() if lines else []
    if len(header) not in (1, 2) or not all(re.fullmatch(_NUMBER, word) for word in header):
        numbers = 'of folds and of pairs of each kind in a fold, such as "10 300", or only the number of pairs'
        raise ValueError(f"{name!r} must begin with the number {numbers}; line 1 is {lines[0] if lines else ''!r:.200}")
    folds, count = map(int, header if len(header) == 2 else (1, header[0]))
    expected, got = 2 * folds * count, len(lines) - 1
    if got != expected:
        pairs = f"{count} genuine and {count} impostor pairs in each of {folds} folds"
        raise ValueError(f"{name!r} must have {expected} lines after its first, {pairs}; got {got}")
    pairs, wrong = [], []
    for i, line in enumerate(lines[1:]):
        genuine = i % (2 * count) < count
        pair = _pair(line, genuine)
        if pair is None:
            form = "genuine pair: name, number, number" if genuine else "impostor pair: name, number, name, number"
            wrong.append(f"\n  line {i + 2} must hold one {form}; got {line!r:.200}")
        else:
            pairs.append((*pair, genuine, i // (2 * count)))
    if wrong:
        more = f"\n  and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise ValueError(f"{name!r} has {len(wrong)} malformed lines:{''.join(wrong[:10])}{more}")
    return [list(column) for column in zip(*pairs, strict=True)]


def _pair(line, genuine):
    """The two images `(person, number)` in a line, or None if it is malformed or not a pair of this kind."""
    found = (_GENUINE if genuine else _IMPOSTOR).fullmatch(line.strip())
    if found is None:
        return None
    person, number, *other, other_number = found.groups()
    left, right = (person, int(number)), (other[0] if other else person, int(other_number))
    return None if left == right or (left[0] == right[0]) != genuine else (left, right)
