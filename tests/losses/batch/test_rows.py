"""What PyTorch computes in another way where tensors have values: narrow positives, distances with a gradient."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import distances, losses
from keras_siamese._export import exported
from keras_siamese.losses.batch import rows as module
from keras_siamese.losses.batch.rows import Batch, Rows, places_of
from keras_siamese.ops import has_values
from tests.support.batches import array, make, uneven

NAMES = list(exported(losses.BatchLoss))
pytestmark = pytest.mark.torch


@pytest.fixture
def plain(monkeypatch):
    """A function that turns off what depends on values."""

    def turn_off():
        for place in (module, distances):
            monkeypatch.setattr(place, "has_values", lambda tensor: False)

    return turn_off


def derivatives(loss, labels, embeddings, along, weights):
    """Value, gradient, and derivative of the gradient in the direction `along`, of the weighted loss in float64."""
    import torch

    x = torch.tensor(embeddings, dtype=torch.float64, requires_grad=True)
    value = loss(labels, x, sample_weight=weights)
    (slope,) = torch.autograd.grad(value, x, create_graph=True)
    (bend,) = torch.autograd.grad((slope * torch.tensor(along)).sum(), x, allow_unused=True)
    return [part.detach().numpy() for part in (value, slope, torch.zeros_like(x) if bend is None else bend)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "sizes", ["mixed", *(pytest.param(one, marks=pytest.mark.deep) for one in ("pairs", "one large"))]
)
def test_value_and_derivatives_are_those_of_the_plain_formula(name, sizes, plain, rng):
    labels, embeddings = uneven(rng, sizes)
    rows = Rows(Batch(ops.convert_to_tensor(labels), embeddings), None, lambda a, b: None)
    assert (rows.partners is None) == (sizes == "one large")
    embeddings[3] = embeddings[7]  # a distance of 0
    along, weights = rng.normal(size=embeddings.shape), rng.uniform(0.5, 2.0, len(labels))
    quick = derivatives(make(name, dtype="float64"), labels, embeddings, along, weights)
    plain()
    # Keras's `logaddexp` rounds to float32.
    for found, expected in zip(
        quick, derivatives(make(name, dtype="float64"), labels, embeddings, along, weights), strict=True
    ):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("index", [None, [4, 1, 5]])
def test_positives_are_taken_out_of_the_matrix(index, rng):
    labels, embeddings = uneven(rng)
    batch = Batch(ops.convert_to_tensor(labels), ops.convert_to_tensor(embeddings))
    rows = Rows(batch, None if index is None else ops.convert_to_tensor(index), lambda a, b: a @ b.T)
    entries, mask = rows.positive_side(rows.matrix)
    assert entries.shape[1] == 4
    for near, counts, row, positive in zip(entries, mask, rows.matrix, rows.positive, strict=True):
        assert sorted(near[counts > 0].tolist()) == sorted(row[positive].tolist())
    assert np.array_equal(array(rows.negatives), array(rows.negative))
    assert np.array_equal(array(rows.positives), array(rows.positive))


def test_quick_places_are_the_places(rng):
    labels = ops.convert_to_tensor(rng.integers(-3, 5, 40) * 2**20)
    for quick, place in zip(module.quick_places_of(labels), places_of(labels), strict=True):
        assert quick.dtype == place.dtype
        np.testing.assert_array_equal(quick, place)


def test_what_is_traced_or_transformed_has_no_values():
    import torch

    seen = []
    torch.func.grad(lambda x: seen.append(has_values(x)) or x.sum())(torch.ones(2))
    torch.func.vmap(lambda x: seen.append(has_values(x)) or x)(torch.ones(2, 2))
    seen.append(has_values(torch.ones(2, device="meta")))
    with torch.autograd.forward_ad.dual_level():
        seen.append(has_values(torch.ones(2)))
    assert seen == [False] * 4
    assert has_values(torch.ones(2))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # PyTorch's own, in forward mode
@pytest.mark.parametrize("name", ["BatchContrastiveLoss", "NCALoss", "SupConLoss"])
def test_functional_gradients_are_those_of_the_tape(name, rng):
    import torch
    from torch.autograd import forward_ad

    labels, embeddings = uneven(rng)
    loss, x = make(name), torch.tensor(embeddings, requires_grad=True)
    loss(labels, x).backward()
    found = torch.func.grad(lambda x: loss(labels, x))(x.detach())
    np.testing.assert_allclose(found, x.grad, rtol=0, atol=1e-6)
    with forward_ad.dual_level():
        dual = loss(labels, forward_ad.make_dual(x.detach(), torch.ones_like(found)))
        forwards = float(forward_ad.unpack_dual(dual).tangent)
    assert forwards == pytest.approx(float(found.sum()), abs=1e-5)


@pytest.mark.deep
def test_a_graph_that_is_compiled_gives_the_same(rng):
    import torch

    labels, embeddings = uneven(rng)
    loss, x = losses.BatchContrastiveLoss(), torch.tensor(embeddings)
    labels = torch.tensor(labels)
    compiled = torch.compile(loss, backend="eager")
    assert float(compiled(labels, x)) == pytest.approx(float(loss(labels, x)), rel=1e-6)
