"""Distances on PyTorch with a gradient of their own: finite differences, zero distance, one wanted side."""

import functools

import numpy as np
import pytest

from keras_siamese import _differences, distances

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("same, is_small", [(False, True), (True, True), (True, False)])
def test_derivatives_of_the_distances_are_numerical(root, same, is_small, rng, monkeypatch):
    import torch

    monkeypatch.setattr(_differences, "SMALL", 512 if is_small else 0)
    a, b = (torch.tensor(rng.normal(size=(n, 3)), requires_grad=True) for n in (4, 5))
    between = functools.partial(distances.squared_differences, root=root)
    apart = 1.0 - torch.eye(4) if same else torch.ones(4, 5)  # the root has no second derivative at 0
    function = (lambda a: between(a, a) * apart) if same else (lambda a, b: between(a, b) * apart)
    assert "Differences" in type(between(a, b).grad_fn).__name__
    inputs = (a,) if same else (a, b)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("root", [False, True])
def test_equal_embeddings_have_distance_and_derivatives_zero(root):
    import torch

    x = torch.ones((3, 4), requires_grad=True)
    distance = distances.squared_differences(x, x, root)
    (slope,) = torch.autograd.grad(distance.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert not distance.any() and not slope.any() and not bend.any()


@pytest.mark.parametrize("root", [False, True])
def test_only_wanted_gradients_are_computed(root, rng):
    import torch

    a, b = (torch.tensor(rng.normal(size=(n, 3)), requires_grad=n == 5) for n in (4, 5))
    distances.squared_differences(a, b, root).sum().backward()
    assert a.grad is None
    expected = b.detach().requires_grad_()
    ((a[:, None] - expected) ** 2).sum(-1).pow(0.5 if root else 1.0).sum().backward()
    np.testing.assert_allclose(b.grad, expected.grad, rtol=1e-9)
