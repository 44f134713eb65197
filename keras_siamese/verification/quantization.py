"""Embeddings in one byte or one bit a dimension, and what that costs in EER.

Contract: embeddings `(n, dim)` in, codes out as sentence-transformers' `quantize_embeddings` makes them; and back to
embeddings, which any distance compares. `quantization_cost` compares the EER of the codes with that of the embeddings,
on the same pairs and the same resamples of identities. Pure NumPy; anything above `distances` may import it.

    ranges = embedding_ranges(z_train)                                # (2, dim), the least and the largest values
    codes = quantize_embeddings(z, "int8", ranges)                    # (n, dim) int8, a quarter of the memory
    near_z = dequantize_embeddings(codes, "int8", ranges)
    print(quantization_cost(z_valid, labels_valid, ("int8", "binary"), ranges=ranges))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_siamese._checks import check_choice, check_finite, check_integer, check_labels, check_reals
from keras_siamese._tables import aligned
from keras_siamese._types import ArrayLike
from keras_siamese.verification.intervals import Interval, bootstrap
from keras_siamese.verification.pairs import check_embeddings, draw_pairs

PRECISIONS = ("int8", "uint8", "binary", "ubinary")
COMPARED = ("int8", "binary")  # the others hold the same numbers
MAX_PAIRS = 100_000
BLOCK = 2**16  # pairs compared at a time


def embedding_ranges(embeddings: ArrayLike) -> np.ndarray:
    """The smallest and the largest value of each dimension, `(2, dim)` float32, from embeddings `(n, dim)`, n ≥ 2.

    Use many embeddings, such as those of the training data. Later values outside of these ranges are cut off.

    >>> embedding_ranges(np.array([[0.5, -1.0], [0.25, 3.0]])).tolist()
    [[0.25, -1.0], [0.5, 3.0]]
    """
    embeddings = check_embeddings(embeddings)
    if len(embeddings) < 2:
        raise ValueError(f"`embeddings` must be at least 2 for their ranges; got {len(embeddings)}")
    return np.stack([embeddings.min(axis=0), embeddings.max(axis=0)]).astype(np.float32)


def quantize_embeddings(embeddings: ArrayLike, precision: str = "int8", ranges: ArrayLike | None = None) -> np.ndarray:
    """Embeddings with one byte or one bit for each dimension, as sentence-transformers' function of this name.

    - "int8", "uint8": ⌊(x − least) / step⌋ in 0 … 255, with step = (largest − least) / 255 of the dimension; "int8" is
      this minus 128.
    - "binary", "ubinary": 1 for x > 0, eight dimensions in a byte, the first one in its highest bit; "binary" is the
      byte minus 128. It suits embeddings whose values lie around 0.

    The codes are those of sentence-transformers since version 5.7, of embeddings in float32 or float16. Those in
    float64 are rounded to float32 first, so that a list has the codes of its array; a value at the end of a step may
    then have the next code. Before 5.7, its int8 codes below 0 are one higher, as they were rounded towards 0, and
    values outside of the ranges wrap around instead of being cut off.

    Args:
        embeddings: `(n, dim)`, finite.
        precision: "int8", "uint8", "binary" or "ubinary".
        ranges: for int8 and uint8, the least and the largest value of each dimension `(2, dim)`, as `embedding_ranges`
            finds them. None takes them from these embeddings: then other embeddings need the same ones.

    Returns:
        `(n, dim)` or, of bits, `(n, ⌈dim / 8⌉)`, int8 or uint8.

    Raises:
        ValueError: for other precisions, for ranges that do not fit or are given with a binary precision, and if there
            are fewer than two embeddings to find ranges of.

    >>> z = np.array([[0.5, -1.0, 0.1], [-0.5, 1.0, 0.2]])
    >>> quantize_embeddings(z, "uint8", ranges=[[-1, -1, -1], [1.55, 1.55, 1.55]]).tolist()
    [[150, 0, 110], [50, 200, 120]]
    >>> quantize_embeddings(z, "ubinary").tolist()
    [[160], [96]]
    """
    embeddings, ranges = check_embeddings(embeddings), _check_ranges(ranges, precision)
    if precision in ("binary", "ubinary"):
        codes = np.packbits(embeddings > 0, axis=1)
    else:
        ranges = embedding_ranges(embeddings) if ranges is None else ranges
        least, step = _steps(ranges, embeddings.shape[1])
        codes = np.clip(np.floor((embeddings.astype(np.float32) - least) / step), 0, 255).astype(np.uint8)
    # 128 less in two's complement is the highest bit turned over.
    return codes if precision[0] == "u" else (codes ^ 0x80).view(np.int8)


def dequantize_embeddings(
    codes: ArrayLike, precision: str = "int8", ranges: ArrayLike | None = None, dim: int | None = None
) -> np.ndarray:
    """Embeddings `(n, dim)` float32 from the codes of `quantize_embeddings`, `(n, dim)` or of bits `(n, ⌈dim / 8⌉)`.

    A byte becomes the middle of its step, or the one value of a dimension that does not vary. A bit becomes 1 or −1;
    the cosine distance of embeddings from bits is 2·Hamming distance / dim.

    Args:
        codes: codes of the `precision`, int8 or uint8.
        precision: as in `quantize_embeddings`.
        ranges: the ranges with which bytes were made, `(2, dim)`; None for bits.
        dim: number of dimensions of bits; None means eight for each byte.

    >>> z = np.array([[0.5, -1.0, 0.1], [-0.5, 1.0, 0.2]])
    >>> dequantize_embeddings(quantize_embeddings(z, "binary"), "binary", dim=3).tolist()
    [[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]
    """
    ranges, codes = _check_ranges(ranges, precision), check_reals("codes", codes)
    wanted = "uint8" if precision[0] == "u" else "int8"
    if codes.ndim != 2 or codes.dtype != wanted:
        raise ValueError(f"`codes` must be {wanted} of shape (n, k); got {codes.dtype} of shape {codes.shape}")
    codes = codes if wanted == "uint8" else codes.view(np.uint8) ^ 0x80
    if precision in ("binary", "ubinary"):
        most = 8 * codes.shape[1]
        dim = most if dim is None else check_integer("dim", dim, low=max(1, most - 7), high=most)
        return 2 * np.unpackbits(codes, axis=1, count=dim).astype(np.float32) - 1
    if ranges is None:
        raise ValueError("`ranges` must be those with which the codes were made; got None")
    least, step = _steps(ranges, codes.shape[1], constant=0)
    return ((codes + np.float32(0.5)) * step + least).astype(np.float32)


@dataclass(frozen=True, eq=False)
class QuantizationCost:
    """The EER of embeddings in one precision.

    Attributes:
        precision: "float32", "int8" or "binary".
        dim: number of dimensions that are kept, the first ones.
        size: bytes of an embedding.
        eer: `Interval` of the EER.
        difference: `Interval` of this EER minus that of all dimensions in float32, on the same resamples.
    """

    precision: str
    dim: int
    size: int
    eer: Interval
    difference: Interval


@dataclass(frozen=True, eq=False)
class QuantizationReport:
    """The result of `quantization_cost`; `str()` gives a table.

    Attributes:
        rows: a `QuantizationCost` for each precision and number of dimensions. The first is that of all dimensions in
            float32.
        genuines, impostors: numbers of pairs.
        identities: number of identities.
    """

    rows: tuple[QuantizationCost, ...]
    genuines: int
    impostors: int
    identities: int

    def __str__(self) -> str:
        confidence = self.rows[0].eer.confidence
        head = ("", "dim", "bytes", "EER", "more than float32", f"{100 * confidence:.4g}% interval")
        cells = [head]
        for row in self.rows:
            more = row.difference
            between = f"{more.low:+.4f} to {more.high:+.4f}" if row is not self.rows[0] else ""
            gap = f"{more.estimate:+.4f}" if row is not self.rows[0] else ""
            cells.append((row.precision, str(row.dim), str(row.size), f"{row.eer.estimate:.4f}", gap, between))
        given = f"{self.genuines:,} genuine and {self.impostors:,} impostor pairs of {self.identities:,} identities"
        return "\n".join([*aligned(cells, right=(1, 2, 3, 4, 5)), given])

    def to_dict(self) -> list[dict[str, Any]]:
        """The table as numbers and strings for JSON."""
        ends = ("estimate", "low", "high", "standard_error")
        return [
            {"precision": row.precision, "dim": row.dim, "bytes": row.size}
            | {name: {end: getattr(getattr(row, name), end) for end in ends} for name in ("eer", "difference")}
            for row in self.rows
        ]


def quantization_cost(
    embeddings: ArrayLike,
    labels: ArrayLike,
    precisions: Sequence[str] = COMPARED,
    *,
    dims: Sequence[int] | None = None,
    ranges: ArrayLike | None = None,
    samples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> QuantizationReport:
    """By how much the EER grows if embeddings are stored in fewer bits, or with fewer dimensions.

    All pairs of the embeddings are compared by their cosine, or 100,000 of them, half of them genuine if there are so
    many. Codes are turned back into embeddings first; of bits, this is the order of Hamming distances. The intervals
    are those of `bootstrap` over identities. Each resample has the same identities for all precisions, so the interval
    of a difference is much narrower than those of the two EERs.

    Args:
        embeddings: `(n, dim)`, finite.
        labels: `(n,)` identities, integers or strings, of samples that were not trained on.
        precisions: some of "int8" and "binary".
        dims: numbers of dimensions to compare, as after training with `MatryoshkaLoss`; None compares all of them.
        ranges: the ranges of int8 `(2, dim)`. None takes those of these embeddings, which is a little too good.
        samples, confidence, seed: as in `bootstrap`.

    Returns:
        A `QuantizationReport`.

    Raises:
        ValueError: if there are no genuine or no impostor pairs, for other precisions, and for dims above dim.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(120) // 4
    >>> z = rng.normal(size=(30, 16))[labels] + rng.normal(size=(120, 16))
    >>> report = quantization_cost(z, labels)
    >>> [(row.precision, row.size) for row in report.rows]
    [('float32', 64), ('int8', 16), ('binary', 2)]
    >>> report.rows[2].difference.low > 0  # bits lose something here
    True
    """
    embeddings = check_embeddings(embeddings)
    dim = embeddings.shape[1]
    precisions = [check_choice("precisions", one, COMPARED) for one in _listed("precisions", precisions)]
    dims = [check_integer("dims", one, low=1, high=dim) for one in ([dim] if dims is None else _listed("dims", dims))]
    ranges = embedding_ranges(embeddings) if ranges is None else _check_ranges(ranges, "int8")
    _steps(ranges, dim)  # raises if they do not fit
    names, codes = np.unique(check_labels("labels", labels, length=len(embeddings)), return_inverse=True)
    codes = codes.reshape(-1)
    left, right = draw_pairs(codes, MAX_PAIRS, np.random.default_rng(check_integer("seed", seed, low=0)))
    same = codes[left] == codes[right]
    genuines = int(same.sum())
    if genuines in (0, len(same)):
        found = f"{genuines} genuine and {len(same) - genuines} impostor pairs"
        raise ValueError(f"`labels` must give pairs of both classes; got {found}")

    options: dict[str, Any] = {"samples": samples, "confidence": confidence, "seed": seed}
    kinds = [("float32", dim), *((one, kept) for kept in dims for one in ("float32", *precisions))]
    eers = {}
    for precision, kept in dict.fromkeys(kinds):
        z = _stored(embeddings[:, :kept], precision, ranges[:, :kept])
        scores = _cosines(z, left, right)
        eers[precision, kept] = bootstrap(["eer"], same, scores, codes[left], codes[right], **options)["eer"]
    whole = eers["float32", dim]
    rows = []
    for (precision, kept), eer in eers.items():
        # The seed is the same, and so are the identities that each resample draws.
        apart = Interval.of(eer.estimate - whole.estimate, eer.replicates - whole.replicates, eer.confidence)
        size = {"float32": 4 * kept, "int8": kept, "binary": -(-kept // 8)}[precision]
        rows.append(QuantizationCost(precision, kept, size, eer, apart))
    return QuantizationReport(tuple(rows), genuines, len(same) - genuines, len(names))


def _stored(embeddings, precision, ranges):
    """What is left of the embeddings `(n, dim)` in a precision, `(n, dim)`."""
    if precision == "float32":
        return embeddings
    if precision == "int8":
        return dequantize_embeddings(quantize_embeddings(embeddings, precision, ranges), precision, ranges)
    return dequantize_embeddings(quantize_embeddings(embeddings, precision), precision, dim=embeddings.shape[1])


def _cosines(embeddings, left, right):
    """The cosines of pairs of rows, `(pairs,)`; 0 with a vector of zeros. Equal Hamming distances give equal ones."""
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    norms[norms == 0] = 1
    found = np.empty(len(left))
    for start in range(0, len(left), BLOCK):
        a, b = left[start : start + BLOCK], right[start : start + BLOCK]
        products = np.einsum("nd,nd->n", embeddings[a], embeddings[b], dtype=np.float64)
        found[start : start + BLOCK] = products / (norms[a] * norms[b])
    return found


def _steps(ranges, dim, constant=1):
    """The least value and the step of each dimension, `(dim,)` each; the step of a dimension of one value is given."""
    if ranges.shape[1] != dim:
        raise ValueError(f"`ranges` must have one column for each of the {dim} dimensions; got shape {ranges.shape}")
    step = (ranges[1] - ranges[0]) / np.float32(255)
    return ranges[0], np.where(step == 0, np.float32(constant), step)


def _check_ranges(ranges, precision):
    """Returns `ranges` as float32 `(2, dim)`, or None; checks the precision too."""
    check_choice("precision", precision, PRECISIONS)
    if ranges is None:
        return None
    if "binary" in precision:
        raise ValueError(f"`ranges` must be None with precision={precision!r}, which compares with 0; got ranges")
    ranges = check_finite("ranges", check_reals("ranges", ranges)).astype(np.float32)
    if ranges.ndim != 2 or len(ranges) != 2:
        raise ValueError(f"`ranges` must have shape (2, dim): least and largest values; got shape {ranges.shape}")
    if (ranges[0] > ranges[1]).any():
        raise ValueError("`ranges` must hold the least values first, then the largest; some are the other way round")
    return ranges


def _listed(name, values):
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError(f"`{name}` must be a list or tuple; got {values!r}")
    return values
