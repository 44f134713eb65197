"""Batches of identities and embeddings, and the value and gradient of a batch loss on them, on each backend.

Whatever is random comes from the generator that is handed in.

    labels, embeddings = uneven(rng)                            # (18,), (18, 6)
    value, grad = evaluate(NTXentLoss(), labels, embeddings)    # arrays; reduction="none" gives (18,) values
"""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese._export import exported
from keras_siamese.losses import BatchLoss, SupConLoss
from tests.support.gradients import gradient

ON_TORCH = keras.backend.backend() == "torch"
# Of further cases of a test: quick on PyTorch, where one takes milliseconds, and deep on the backends that trace it.
FURTHER = () if ON_TORCH else (pytest.mark.deep,)
# Losses that stand for the others: triplets with a gradient of their own, a softmax of cosines, means over the batch.
REPRESENTATIVES = ("BatchTripletLoss", "NTXentLoss", "IntraPairVarianceLoss")

# Rows an identity, in batches of 18: singletons among them, and one identity that is most of the batch.
SIZES = {"mixed": (5, 4, 1, 3, 2, 3), "one large": (11, 1, 2, 1, 3), "pairs": (2, 3, 2, 2, 3, 2, 2, 2)}
IDENTITIES = (3, 9, 4, 70_001, 1, 12, 0, -5)

# Options without a default.
REQUIRED = {
    "RankedListLoss": {"margin": 0.4, "negative_temperature": 4.0},
    "MatryoshkaLoss": {"loss": SupConLoss(), "dims": [2, 1]},
}


def deep_elsewhere(test):
    """Decorator of a test that is quick on PyTorch and deep on TensorFlow and JAX."""
    return test if ON_TORCH else pytest.mark.deep(test)


def for_each_loss(names, further=FURTHER):
    """Runs a test for each loss: on each backend for those that stand for the others, which are marked `further`."""
    marks = {name: pytest.mark.each_backend if name in REPRESENTATIVES else further for name in names}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in names])


def make(name, /, **options):
    """A batch loss by its class's name, with defaults where there are any."""
    return exported(BatchLoss)[name](**REQUIRED.get(name, {}), **options)


def uneven(rng, sizes="mixed", dim=6, scale=0.45):
    """Labels `(batch,)` and embeddings `(batch, dim)` of any norm, the rows of one identity nearer to each other."""
    sizes = SIZES.get(sizes, sizes)
    labels = np.repeat(IDENTITIES[: len(sizes)], sizes)
    centres = rng.normal(size=(len(sizes), dim))
    embeddings = scale * (0.5 * np.repeat(centres, sizes, axis=0) + 0.7 * rng.normal(size=(len(labels), dim)))
    order = rng.permutation(len(labels))
    return labels[order], embeddings[order].astype("float32")


def array(tensor):
    """A tensor of any float dtype as a NumPy array of float64."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), "float64")


@functools.cache
def compiled(loss):
    """On JAX, the loss and the gradient of its mean, compiled once for all batches of one shape."""
    import jax

    def mean(embeddings, labels):
        values = loss(labels, embeddings)
        return ops.mean(ops.cast(values, "float32")), values

    # Most of the time goes into LLVM's passes over code that runs twice.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(jax.value_and_grad(mean, has_aux=True), compiler_options=options)


@functools.cache
def per_row(name):
    """The loss of this name with defaults and one value a row; the same one again, so that JAX compiles it once."""
    return make(name, reduction="none")


def evaluate(loss, labels, embeddings, dtype="float32"):
    """The loss's value, and the gradient of its mean by the embeddings, as float64 arrays."""
    labels = np.asarray(labels)
    if keras.backend.backend() == "jax":
        tensors = ops.convert_to_tensor(embeddings, dtype), ops.convert_to_tensor(labels.astype("int32"))
        (_, values), grad = compiled(loss)(*tensors)
        return array(values), array(grad)
    kept = []

    def mean(embeddings):
        kept.append(loss(labels, ops.cast(embeddings, dtype)))
        return ops.mean(ops.cast(kept[0], "float32"))

    (grad,) = gradient(mean, np.asarray(embeddings, "float32"))
    return array(kept[0]), grad.astype("float64")
