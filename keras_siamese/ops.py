"""Stateless tensor pieces that distances, losses and layers share, written once on `keras.ops`.

Contract: tensors of any backend in, tensors of the same backend out, static shapes, gradients finite everywhere.
Imports nothing of the package.

    z = unit(at_least_float32(embeddings))             # (batch, dim)
    d = safe_sqrt(ops.sum(ops.square(a - b), -1))      # exact 0 with gradient 0 at a = b
    same, d = pair_rows(y_true, y_pred)                # (batch,) each, whatever their trailing axis
"""

import keras
from keras import ops

# Below this norm a vector has no direction that float32 could tell: its unit vector is 0, with gradient 0.
NORM_FLOOR = 1e-6


def at_least_float32(tensor):
    """`tensor` as float32 if its dtype is an integer, float16 or bfloat16; wider floats pass unchanged."""
    tensor = ops.convert_to_tensor(tensor)
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")


def safe_sqrt(square):
    """√x with the value 0 and the gradient 0 at x ≤ 0, where the plain root has an infinite or no derivative."""
    # Asked as ≤ 0 and not as > 0: a NaN fails both and must come out as NaN.
    flat = square <= 0
    return ops.where(flat, ops.zeros_like(square), ops.sqrt(ops.where(flat, ops.ones_like(square), square)))


def absolute(tensor):
    """|x| with the gradient 0 at 0, where JAX's own has 1 and so pushes equal embeddings apart."""
    return tensor * ops.stop_gradient(ops.sign(tensor))


def safe_norm(tensor):
    """Euclidean norm along the last axis, gradient 0 at the zero vector."""
    return safe_sqrt(ops.sum(ops.square(tensor), axis=-1))


def unit(tensor):
    """x / ‖x‖ along the last axis; vectors shorter than 1e-6 become 0, so the gradient never exceeds 1e6."""
    square = ops.sum(ops.square(tensor), axis=-1, keepdims=True)
    short = square <= NORM_FLOOR**2
    inverse = ops.rsqrt(ops.where(short, ops.ones_like(square), square))
    return ops.where(short, ops.zeros_like(tensor), tensor * inverse)


def zero_diagonal(matrix):
    """`matrix` `(n, n)` with exact zeros on its diagonal: a sample's distance to itself."""
    rows = ops.arange(ops.shape(matrix)[0])
    diagonal = ops.expand_dims(rows, 1) == ops.expand_dims(rows, 0)
    return ops.where(diagonal, ops.zeros_like(matrix), matrix)


def row_vector(name, tensor):
    """`tensor` of shape `(batch,)` or `(batch, 1)` as `(batch,)`; another shape is refused.

    Raises:
        ValueError: for any other shape. Broadcasting `(batch,)` against `(batch, 1)` makes a `(batch, batch)` matrix
            whose mean looks like a loss.
    """
    tensor = ops.convert_to_tensor(tensor)
    if len(tensor.shape) == 1:
        return tensor
    if len(tensor.shape) == 2 and tensor.shape[1] == 1:
        return ops.squeeze(tensor, axis=1)
    raise ValueError(f"`{name}` must have shape (batch,) or (batch, 1); got {tuple(tensor.shape)}")


def pair_rows(y_true, y_pred):
    """Pair labels and pair outputs, each `(batch,)` or `(batch, 1)`, both as `(batch,)`."""
    y_true, y_pred = row_vector("y_true", y_true), row_vector("y_pred", y_pred)
    if None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        raise ValueError(
            f"`y_true` and `y_pred` must have one row a pair; got {tuple(y_true.shape)} and {tuple(y_pred.shape)}"
        )
    return y_true, y_pred
