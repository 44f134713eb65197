"""Gradients of one function on each backend, and by central differences in float64, for comparison.

Arrays in, a list of arrays of the same shapes out.

    analytic = gradient(lambda a, b: ops.sum(distance.rowwise(a, b)), a, b)
    numeric = numerical_gradient(lambda a, b: sum(map(oracle, a, b)), a, b)
"""

import keras
import numpy as np


def gradient(function, *arrays):
    """The gradients of a scalar tensor function at `arrays`, one NumPy array each; an unconnected input is an error."""
    grads = {"tensorflow": tensorflow_gradient, "jax": jax_gradient, "torch": torch_gradient}
    return [np.asarray(grad) for grad in grads[keras.backend.backend()](function, arrays)]


def tensorflow_gradient(function, arrays):
    import tensorflow as tf

    tensors = [tf.constant(array) for array in arrays]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    grads = tape.gradient(value, tensors)
    assert all(grad is not None for grad in grads), "the graph is cut"
    return [tf.convert_to_tensor(grad).numpy() for grad in grads]


def jax_gradient(function, arrays):
    import jax

    # Compiled whole, as in `fit`: XLA fuses and reorders, and a gradient has to stand that.
    return jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))(*arrays)


def torch_gradient(function, arrays):
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    function(*tensors).backward()
    return [tensor.grad.numpy() for tensor in tensors]


def numerical_gradient(function, *arrays, step=1e-5):
    """Central differences of a scalar function of float64 arrays, which it may read but not keep."""
    arrays = [np.array(array, dtype="float64") for array in arrays]
    grads = [np.zeros_like(array) for array in arrays]
    for array, grad in zip(arrays, grads, strict=True):
        for index in np.ndindex(array.shape):
            centre = array[index]
            array[index] = centre + step
            above = function(*arrays)
            array[index] = centre - step
            below = function(*arrays)
            array[index] = centre
            grad[index] = (above - below) / (2 * step)
    return grads
