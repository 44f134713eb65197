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

# Whether masks are multiplied, see `as_factors`.
MULTIPLIES = keras.backend.backend() == "torch"

# On PyTorch, up to this many columns, fewer operations are faster than operations on fewer numbers.
NARROW = 64

if MULTIPLIES:
    import torch


def has_values(tensor):
    """Whether a `tensor` is one of PyTorch on the CPU that is computed at once, not traced or transformed.

    Code may then depend on its values at no cost, for example on the number of rows of the largest identity.
    """
    if not MULTIPLIES or tensor.device.type != "cpu" or type(tensor) is not torch.Tensor:
        return False
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return not (traced or forward_mode or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def named_tensor(name, values):
    """`values` as a tensor of the backend; a `TypeError` names them if they are no real numbers or booleans."""
    try:
        if hasattr(values, "detach") and keras.backend.backend() != "torch":
            values = values.detach().cpu()
        tensor = ops.convert_to_tensor(values)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # depends on the backend
        if isinstance(error, RuntimeError) and getattr(getattr(values, "dtype", None), "kind", "O") in "biuf":
            raise  # these are numbers: it is something else, such as the memory of a device
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


def is_above(matrix, limit=0.0):
    """1 where an entry of `matrix` is above the `limit`, and 0 elsewhere, in its dtype and without a gradient."""
    gap = ops.stop_gradient(matrix) - limit
    # On PyTorch, `where` and comparisons that return booleans take several times as long as arithmetic.
    return gap.gt_(0.0) if MULTIPLIES else ops.cast(gap > 0.0, gap.dtype)


def safe_sqrt(square, above=None):
    """√x, with value 0 and gradient 0 at x ≤ 0, where the derivative of the square root is infinite or undefined.

    `above` holds 0 for further entries that count as 0, and 1 for the others.
    """
    # 1e-37 changes no other number and keeps the gradient finite. NaN stays NaN.
    return ops.sqrt(ops.relu(square) + 1e-37) * (is_above(square) if above is None else above)


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
    square = ops.sum(tensor * tensor, axis=-1, keepdims=True)
    long = is_above(square - NORM_FLOOR**2)
    inverse = ops.rsqrt(square + (1.0 - long))
    return tensor * (inverse * ops.where(ops.isinf(square), float("nan"), long))


def zero_diagonal(matrix):
    """`matrix` `(n, n)` with exact zeros on its diagonal, the distances of samples to themselves."""
    rows = ops.arange(ops.shape(matrix)[0])
    diagonal = ops.expand_dims(rows, 1) == ops.expand_dims(rows, 0)
    return ops.where(diagonal, 0.0, matrix)


# Masks are booleans or what `as_factors` returns.


def count(mask):
    """Number of entries in each row inside `mask` `(rows, columns)`: `(rows,)`, float32."""
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def as_factors(mask):
    """A boolean `mask` in the form that is fastest here: on PyTorch as 0 and 1 in float32, else as it is.

    On PyTorch, `where` takes five times as long as a product. JAX and TensorFlow compile `where`, so it is fast there.
    """
    return ops.cast(mask, "float32") if MULTIPLIES else mask


def masked(matrix, mask):
    """The finite entries of `matrix` inside `mask` of the same shape, and 0 elsewhere."""
    return matrix * as_factors(mask) if MULTIPLIES else ops.where(mask, matrix, 0.0)


def lowered(matrix, mask):
    """The entries of `matrix` inside `mask` of the same shape, and about −1e30 elsewhere."""
    if MULTIPLIES:
        return torch.add(matrix, 1.0 - as_factors(mask), alpha=LOWEST)
    return ops.where(mask, matrix, LOWEST)


def masked_sum(matrix, mask):
    """Sum of each row's entries inside `mask`, both `(rows, columns)`: `(rows,)`; 0 if there are none."""
    return ops.sum(masked(matrix, mask), axis=1)


def masked_max(matrix, mask):
    """Largest entry of each row inside `mask`, both `(rows, columns)`: `(rows,)`; −1e30 if there are none."""
    return ops.max(lowered(matrix, mask), axis=1)


def masked_min(matrix, mask):
    """Smallest entry of each row inside `mask`, both `(rows, columns)`: `(rows,)`; 1e30 if there are none."""
    return -ops.max(lowered(-matrix, mask), axis=1) if MULTIPLIES else ops.min(ops.where(mask, matrix, -LOWEST), axis=1)


def masked_logsumexp(matrix, mask, few=False):
    """log Σ exp of each row's entries inside `mask`, both `(rows, columns)`: `(rows,)`; −1e30 if there are none.

    `few` says that only few entries are inside, so that it does not matter how long their exponential takes.
    """
    inside = lowered(matrix, mask)
    if MULTIPLIES and few and matrix.shape[1] <= NARROW:
        return ops.logsumexp(inside, axis=1)
    largest = ops.stop_gradient(ops.max(inside, axis=1, keepdims=True))
    # The largest term is 1, so terms below e^-80 do not change the sum. PyTorch's exp is ten to thirty times slower
    # where it underflows.
    if MULTIPLIES:
        gap = masked(matrix - largest, mask)
        gap = gap if few else gap + ops.relu(-80.0 - ops.stop_gradient(gap))
        total = masked_sum(ops.exp(gap), mask)
        total = total + (1.0 - is_above(total))  # log 1 where there are none
    else:
        total = ops.sum(ops.exp(ops.maximum(inside - largest, -80.0)), axis=1)
    return ops.log(total) + largest[:, 0]


def softmax(tensor, axis):
    """Keras's softmax, without its warning where the `axis` has one entry: a batch of one row, or one centre."""
    return ops.exp(tensor - tensor) if tensor.shape[axis] == 1 else ops.softmax(tensor, axis=axis)


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
