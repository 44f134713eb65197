"""Tensor functions that distances, losses and layers share, written with `keras.ops`.

Contract: take and return tensors of the current backend, keep shapes static, and have finite gradients everywhere.
Imports no other module of the package.

    z = unit(at_least_float32(embeddings))             # (batch, dim)
    d = safe_sqrt(ops.sum(ops.square(a - b), -1))      # exact 0 with gradient 0 at a = b
    same, d = pair_rows(y_true, y_pred)                # (batch,) each, from (batch,) or (batch, 1)
"""

import keras
from keras import ops

# A vector with a smaller norm has no direction in float32: its unit vector is 0, with gradient 0.
NORM_FLOOR = 1e-6

# Used in place of −∞ for masked entries in a maximum or a log-sum-exp, because −∞ would give NaN gradients.
LOWEST = -1e30


def named_tensor(name, values):
    """`values` as a tensor of the backend; a `TypeError` names them if they are no real numbers or booleans."""
    try:
        if hasattr(values, "detach") and keras.backend.backend() != "torch":
            values = values.detach().cpu()
        tensor = ops.convert_to_tensor(values)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # depends on the backend
        raise TypeError(f"`{name}` must be a tensor of numbers; got {described(values)}") from error
    if dtype == "string" or "complex" in dtype:
        raise TypeError(f"`{name}` must be a tensor of real numbers; got {described(values)}")
    return tensor


def described(values):
    """What is in place of a tensor, for an error: its dtype and shape, or its type."""
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        return f"dtype {values.dtype} of shape {tuple(values.shape)}"
    return f"a {type(values).__name__}"


def at_least_float32(tensor):
    """`tensor` as float32 if its dtype is an integer, float16 or bfloat16; wider floats pass unchanged."""
    tensor = named_tensor("tensor", tensor)
    wide = keras.backend.standardize_dtype(tensor.dtype) in ("float32", "float64")
    return tensor if wide else ops.cast(tensor, "float32")


def safe_sqrt(square):
    """√x, with value 0 and gradient 0 at x ≤ 0, where the derivative of the square root is infinite or undefined."""
    # Not written with `square > 0`: NaN must stay NaN.
    flat = square <= 0
    return ops.where(flat, 0.0, ops.sqrt(ops.where(flat, 1.0, square)))


def absolute(tensor):
    """|x| with gradient 0 at 0. JAX's own gradient there is 1, which would push equal embeddings apart."""
    return tensor * ops.stop_gradient(ops.sign(tensor))


def safe_norm(tensor):
    """Euclidean norm along the last axis, with gradient 0 at the zero vector."""
    return safe_sqrt(ops.sum(ops.square(tensor), axis=-1))


def unit(tensor):
    """x / ‖x‖ along the last axis. Vectors shorter than 1e-6 become 0, so the gradient never exceeds 1e6.

    Vectors that are so long that the square of their norm overflows (1.8e19 in float32) become NaN.
    """
    square = ops.sum(ops.square(tensor), axis=-1, keepdims=True)
    short = square <= NORM_FLOOR**2
    inverse = ops.rsqrt(ops.where(short, 1.0, square))
    return tensor * ops.where(short, 0.0, ops.where(ops.isinf(square), float("nan"), inverse))


def zero_diagonal(matrix):
    """`matrix` `(n, n)` with exact zeros on its diagonal, the distances of samples to themselves."""
    rows = ops.arange(ops.shape(matrix)[0])
    diagonal = ops.expand_dims(rows, 1) == ops.expand_dims(rows, 0)
    return ops.where(diagonal, 0.0, matrix)


def count(mask):
    """Number of True entries in each row of a boolean `mask` `(rows, columns)`: `(rows,)`, float32."""
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def masked_sum(matrix, mask):
    """Sum of each row's entries inside `mask`, both `(rows, columns)`: `(rows,)`; 0 if there are none."""
    return ops.sum(ops.where(mask, matrix, 0.0), axis=1)


def masked_max(matrix, mask):
    """Largest entry of each row inside `mask`, both `(rows, columns)`: `(rows,)`; −1e30 if there are none."""
    return ops.max(ops.where(mask, matrix, LOWEST), axis=1)


def masked_min(matrix, mask):
    """Smallest entry of each row inside `mask`, both `(rows, columns)`: `(rows,)`; 1e30 if there are none."""
    return ops.min(ops.where(mask, matrix, -LOWEST), axis=1)


def masked_logsumexp(matrix, mask):
    """log Σ exp of each row's entries inside `mask`, both `(rows, columns)`: `(rows,)`; −1e30 if there are none."""
    matrix = ops.where(mask, matrix, LOWEST)
    largest = ops.stop_gradient(ops.max(matrix, axis=1, keepdims=True))
    # The largest term is 1, so terms below e^-80 do not change the sum. PyTorch's exp is ten to thirty times slower
    # where it underflows.
    terms = ops.exp(ops.maximum(matrix - largest, -80.0))
    return ops.log(ops.sum(terms, axis=1)) + ops.squeeze(largest, axis=1)


def column(vector):
    """`(n,)` as `(n, 1)`, to broadcast along the rows of a matrix."""
    return ops.expand_dims(vector, 1)


def row_vector(name, tensor):
    """Return `tensor` of shape `(batch,)` or `(batch, 1)` as `(batch,)`; any other shape is a `ValueError`.

    Broadcasting `(batch,)` against `(batch, 1)` would give a `(batch, batch)` matrix, whose mean looks like a loss.
    """
    tensor = named_tensor(name, tensor)
    if len(tensor.shape) == 2 and tensor.shape[1] == 1:
        return ops.squeeze(tensor, axis=1)
    if len(tensor.shape) != 1:
        raise ValueError(f"`{name}` must have shape (batch,) or (batch, 1); got {tuple(tensor.shape)}")
    return tensor


def pair_rows(y_true, y_pred):
    """Return pair labels and pair outputs, each `(batch,)` or `(batch, 1)`, both as `(batch,)`."""
    y_true, y_pred = row_vector("y_true", y_true), row_vector("y_pred", y_pred)
    if None not in (y_true.shape[0], y_pred.shape[0]) and y_true.shape[0] != y_pred.shape[0]:
        shapes = f"{tuple(y_true.shape)} and {tuple(y_pred.shape)}"
        raise ValueError(f"`y_true` and `y_pred` must have one row for each pair; got {shapes}")
    return y_true, y_pred
