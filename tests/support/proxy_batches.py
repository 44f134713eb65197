"""A batch of embeddings with class weights, its cosines, and the value of a proxy loss on it, here and elsewhere.

of = through_layer(ArcFaceLoss(), centers=1)         # a function of embeddings and class weights
assert_is_pytorch_metric_learnings("ArcFaceLoss", 1, {"margin": 0.5}, {"margin": 28.6})
"""

import warnings

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.layers import ProxyLogits
from tests.support.batches import FURTHER
from tests.support.gradients import gradient

CLASSES, DIM = 5, 4


LABELS = np.array([0, 3, 0, 1, 3, 3, 4, 0, 1])  # uneven, 4 a singleton, 2 absent


ROWS = len(LABELS)


def arrays(centers=1):
    """Embeddings `(rows, dim)` and weights `(classes · centers, dim)`, of unlike lengths."""
    rng = np.random.default_rng(11)
    embeddings = rng.normal(size=(ROWS, DIM)) * rng.uniform(0.3, 3.0, (ROWS, 1))
    return embeddings.astype("float32"), rng.normal(size=(CLASSES * centers, DIM)).astype("float32")


def theirs(name, options, embeddings, weights, regularizer=None):
    """Value and gradients of pytorch-metric-learning in float64, on unit embeddings, by the embeddings given."""
    torch, pml = pytest.importorskip("torch"), pytest.importorskip("pytorch_metric_learning.losses")
    extra = {} if regularizer is None else {"weight_regularizer": regularizer[0], "weight_reg_weight": regularizer[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # theirs, of SciPy on torch tensors
        loss = getattr(pml, name)(num_classes=CLASSES, embedding_size=DIM, **options, **extra)
    (parameter,) = loss.parameters()
    by_columns = parameter.shape[0] == DIM
    parameter.data = torch.tensor(weights.T if by_columns else weights, dtype=torch.float64)
    inputs = torch.tensor(embeddings, dtype=torch.float64, requires_grad=True)
    value = loss(torch.nn.functional.normalize(inputs), torch.tensor(LABELS))
    value.backward()
    slope = parameter.grad.numpy()
    return value.item(), inputs.grad.numpy(), slope.T if by_columns else slope


def through_layer(loss, centers, **options):
    """The loss as a function of embeddings and class weights."""
    layer = ProxyLogits(CLASSES, centers, **options)
    layer.build((None, DIM))

    def of(embeddings, weights, labels=LABELS):
        cosine, _, extra = layer.stateless_call([weights], [], embeddings, return_losses=True)
        return sum(extra, start=loss(labels, cosine))

    return of


def marked(cases, i):
    """Case `i` by its options; on each backend if it is the first of its loss."""
    name, options = cases[i][0], cases[i][2]
    first = name not in [case[0] for case in cases[:i]]
    numbers = "-".join(f"{value:g}" for value in options.values())
    return pytest.param(*cases[i], marks=pytest.mark.each_backend if first else FURTHER, id=f"{name}-{numbers}")


def assert_is_pytorch_metric_learnings(name, centers, options, named):
    """Value and gradients by embeddings and weights; `named` are its options under the peer's names."""
    embeddings, weights = arrays(centers)
    expected = theirs(name, named, embeddings, weights)
    ours = through_layer(getattr(losses, name)(**options), centers)
    assert float(ops.convert_to_numpy(ours(embeddings, weights))) == pytest.approx(expected[0], rel=1e-5)
    for got, right in zip(gradient(ours, embeddings, weights), expected[1:], strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5 * np.max(np.abs(right)))


COSINES = np.random.default_rng(5).uniform(-0.95, 0.95, (ROWS, CLASSES)).astype("float32")
COSINES[0, 0], COSINES[3, 1] = -0.99, 0.99


def value(loss, y_true=LABELS, y_pred=COSINES, **options):
    return ops.convert_to_numpy(ops.cast(loss(y_true, y_pred, **options), "float32"))


def cosines(loss):
    """A y_pred for `loss`, of its own."""
    if not loss.several_centers:
        return COSINES.copy()
    return np.stack([COSINES, 0.5 * COSINES - 0.1], axis=2).astype("float32")
