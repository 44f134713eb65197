"""Text for the base programs, without a download: pieces of the source code of Python's standard library.

An identity is a mixture of three of the largest modules. A sample is some pieces of text, each from one of these
modules. The question is whether two samples have the same sources. Another version of Python has other modules, so
figures depend on the version.

    pieces, labels = pieces_of(270, 14, 64, rng)        # (3780, 64, 32) bytes, sorted by identity
    trigrams(pieces, step=4)                            # (3780, 512) token ids in 0 … BUCKETS − 1
    counts(trigrams(pieces))                            # (3780, BUCKETS) standardised counts
"""

import sysconfig
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
SOURCES, MIXED = 16, 3  # modules, and those of one identity
LENGTH = 32  # characters of a piece
BUCKETS = 509  # a prime, so that the hash mixes the characters of a trigram
HASH = (7919, 104_729, 1_299_709)


@lru_cache(maxsize=1)
def modules():
    """The source code of the largest modules, as arrays of bytes."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts)]
    largest = sorted(paths, key=lambda path: (-path.stat().st_size, path.as_posix()))[:SOURCES]
    return [np.frombuffer(path.read_bytes(), np.uint8) for path in largest]


def pieces_of(count, per, pieces, rng):
    """`per` samples of each of `count` identities: `(count · per, pieces, LENGTH)` bytes, and labels."""
    mixtures = list(combinations(range(SOURCES), MIXED))
    chosen = np.array(mixtures)[rng.permutation(len(mixtures))[:count]]
    labels = np.repeat(np.arange(count), per)
    sources = chosen[labels[:, None], rng.integers(0, MIXED, (len(labels), pieces))]
    sizes = np.array([len(source) for source in modules()])
    starts = np.cumsum(sizes) - sizes
    first = starts[sources] + rng.integers(0, sizes[sources] - LENGTH)
    return np.concatenate(modules())[first[..., None] + np.arange(LENGTH)], labels


def trigrams(pieces, step=1):
    """Hashed ids of each `step`-th trigram of characters of each piece, `(n, ids)`, in 0 … BUCKETS − 1."""
    codes = pieces.astype(np.int64)
    mixed = sum(factor * codes[..., place : LENGTH - 2 + place : step] for place, factor in enumerate(HASH))
    return (mixed % BUCKETS).reshape(len(pieces), -1).astype("int32")


def counts(ids):
    """Square roots of the counts of each id, `(n, BUCKETS)`, standardised over the samples."""
    rows = np.arange(len(ids))[:, None] * BUCKETS
    found = np.bincount((rows + ids).ravel(), minlength=len(ids) * BUCKETS).reshape(len(ids), BUCKETS)
    roots = np.sqrt(found)
    return ((roots - roots.mean(axis=0)) / np.maximum(roots.std(axis=0), 1e-6)).astype("float32")
