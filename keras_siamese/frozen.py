"""Embeddings of an encoder that is not trained, computed once and kept on disk.

Contract: the file's name is a digest of the encoder and of the samples, and a few samples are embedded again whenever
a file is used, so embeddings of other weights, other code or other data are never taken for these.

    z = frozen_embeddings(backbone, x, "cache")      # (n, dim), mapped from disk; the second time, nothing is embedded
    head = keras.Sequential([keras.Input(z.shape[1:]), keras.layers.Dense(64), keras.layers.UnitNormalization()])
    head.compile("adam", SupConLoss())
    head.fit(z, labels)
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import re
from pathlib import Path

import keras
import numpy as np

from keras_siamese._checks import check_integer
from keras_siamese._files import replacing
from keras_siamese._types import Samples, StrPath
from keras_siamese._version import __version__
from keras_siamese.attach.anatomy import check_model
from keras_siamese.data.sources import Rows, check_source, count_samples, named_arrays, take
from keras_siamese.scoring import embed

logger = logging.getLogger(__name__)
CHECKED = 8  # samples that are embedded again when a file is used
CLOSE = 1e-3  # by how much their embeddings may differ, in parts of the largest value: devices round differently
BLOCK = 1 << 26  # bytes that are read for a digest at once


def frozen_embeddings(
    encoder: keras.layers.Layer, x: Samples, folder: StrPath, *, batch_size: int = 256, verbose: int = 1
) -> np.ndarray:
    """The embeddings `(n, dim)` of `x` by an encoder that is not trained, from a file if they were computed before.

    To train a head on a large pretrained backbone, embed the samples once and train the head on the embeddings. An
    epoch then costs what the head costs. Augmentation is not possible, because each sample has one embedding.

    The encoder runs in inference mode. The file in `folder` is named by a digest of the encoder's configuration, its
    weights, the code of layers that are not Keras's, and all samples. Image files are read for it but not decoded.
    Also, eight samples are embedded again and compared. So a file of another encoder or of other samples is never
    used, also if only one weight or one pixel differs.

    Args:
        encoder: a `keras.Model` or layer from a sample to its embedding.
        x: samples, a source `(n, …)` as for `PairSequence`: arrays, a dict of arrays, `ImageFiles` and others.
        folder: folder for the file; made if it is missing.
        batch_size: number of samples embedded at once.
        verbose: 1 shows a progress bar while samples are embedded; 0 shows nothing.

    Returns:
        A read-only float32 array `(n, dim)`, memory-mapped.

    Raises:
        ValueError: if the encoder's output is not `(batch, dim)`.
        OSError: if the file cannot be written. A file is either whole or not there.

    >>> import tempfile, keras, numpy as np, keras_siamese as ks
    >>> backbone = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(16)])
    >>> images = np.random.rand(30, 8, 8, 1).astype("float32")
    >>> z = ks.frozen_embeddings(backbone, images, tempfile.mkdtemp(), verbose=0)
    >>> z.shape
    (30, 16)
    """
    check_model("encoder", encoder)
    x = check_source("x", x)
    check_integer("batch_size", batch_size, low=1)
    file = Path(folder) / f"{digest_of_samples(x)[:24]}-{digest_of_encoder(encoder, x)[:24]}.npy"
    if file.exists():
        found = np.load(file, mmap_mode="r")
        if is_still_right(found, encoder, x):
            return found
        logger.warning("%s does not hold what the encoder gives now, and is written anew", file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        write(draft, encoder, x, batch_size, verbose)
    return np.load(file, mmap_mode="r")


def write(file, encoder, x, batch_size, verbose):
    """Embeds `x` in blocks into the `.npy` file."""
    count, array = count_samples(x), None
    bar = keras.utils.Progbar(count, unit_name="sample") if verbose else None
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        block = embed(encoder, take(x, rows), batch_size)
        if block.ndim != 2:
            raise ValueError(f"`encoder` must return embeddings (batch, dim); got {block.shape}")
        if array is None:
            array = np.lib.format.open_memmap(file, "w+", "float32", (count, block.shape[1]))
        array[rows] = block
        if bar is not None:
            bar.update(rows.stop)
    array.flush()


def is_still_right(found, encoder, x):
    """Whether the embeddings `found` are those of a few samples, embedded now."""
    if found.ndim != 2 or len(found) != count_samples(x):
        return False
    rows = np.unique(np.linspace(0, len(found) - 1, CHECKED).astype(int))
    now = embed(encoder, take(x, rows))
    if now.shape != (len(rows), found.shape[1]):
        return False
    largest = np.abs(now).max(initial=0.0, where=np.isfinite(now))
    return bool(np.allclose(now, found[rows], rtol=0, atol=CLOSE * largest, equal_nan=True))


def digest_of_encoder(encoder, x):
    """A digest of an encoder's configuration, weights and own code, in hexadecimal digits. `x` builds it if needed."""
    if not encoder.built:
        embed(encoder, take(x, slice(0, 1)))
    digest = hashlib.sha256(__version__.encode())
    layers = list(encoder._flatten_layers())
    for kind in sorted({type(layer) for layer in layers}, key=lambda kind: (kind.__module__, kind.__qualname__)):
        if kind.__module__.split(".")[0] not in ("keras", "keras_hub"):
            digest.update(code_of(kind))
    config = json.dumps(without_compilation(keras.saving.serialize_keras_object(encoder)), default=repr)
    # Keras numbers the layers of a process, as in dense_3. Names that a person gave stay.
    for number, name in enumerate(dict.fromkeys(layer.name for layer in layers if is_numbered(layer))):
        config = config.replace(json.dumps(name), f'"{number}"')
    digest.update(config.encode())
    add_weights(digest, encoder)
    return digest.hexdigest()


def add_weights(digest, encoder):
    """Adds the types, shapes and values of an encoder's weights to a digest."""
    for weight in encoder.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data.cast("B") if array.size else b"")


def is_numbered(layer):
    """Whether Keras has named a layer, by its class and a number."""
    return re.sub(r"_\d+$", "", layer.name).replace("_", "") == type(layer).__name__.lower()


def without_compilation(config):
    """A nested configuration without the loss and the optimizer, which do not change the embeddings."""
    if isinstance(config, dict):
        return {key: without_compilation(value) for key, value in config.items() if key != "compile_config"}
    return [without_compilation(value) for value in config] if isinstance(config, (list, tuple)) else config


def code_of(kind):
    """The source of a class, or its name if there is none, as of a class that was typed into an interpreter."""
    try:
        return inspect.getsource(kind).encode()
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}".encode()


def digest_of_samples(x):
    """A digest of the samples of a checked source, in hexadecimal digits."""
    digest = hashlib.sha256(__version__.encode())
    for path, array in named_arrays("x", x):
        digest.update(f"{path} {array.shape} {array.dtype}".encode())
        for part in content_of(array):
            digest.update(part)
    return digest.hexdigest()


def content_of(array):
    """The content of an array or lazy leaf as byte strings: of a source with `digests(rows)`, those of its rows."""
    if isinstance(array, Rows) and hasattr(array.source, "digests"):
        yield from array.source.digests(np.arange(len(array)) if array.rows is None else array.rows)
        return
    each = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    size = max(1, BLOCK // each)
    for start in range(0, len(array), size):
        block = array[start : start + size]
        yield repr(block.tolist()).encode() if block.dtype.kind == "O" else np.ascontiguousarray(block).tobytes()
