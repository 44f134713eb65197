"""Distances between all rows of two arrays on PyTorch, with two matrices in memory instead of ten.

Contract: `Differences.apply(a, b, limit, root)` gives the numbers of `distances.differences` (`root`) or of
`distances.squared_differences`, and their gradients of every order. `distances` imports it on PyTorch only.
"""

try:
    import torch
    from torch.autograd import Function
except ImportError:  # a tool that imports all modules, where PyTorch is not installed
    Function = object

# Up to this many rows, adding a matrix to its transpose is faster than a second product.
SMALL = 512


class Differences(Function):
    """‖a_i − b_j‖² or its root for all i, j: `(n, m)`; 0 with gradient 0 where ‖a_i − b_j‖² ≤ `limit`·‖a_i‖².

    All of it is relative to the mean of `b`, as in `distances.squared_differences`.
    """

    @staticmethod
    def forward(ctx, a, b, limit, root):
        ctx.root, ctx.same, given = root, a is b, (a, b)
        centre = centre_of(b)
        a = a - centre
        b = a if ctx.same else b - centre
        own = (a * a).sum(1, keepdim=True)
        matrix = own + (own if ctx.same else (b * b).sum(1, keepdim=True)).T
        matrix.addmm_(a, b.T, alpha=-2.0)
        matrix.mul_((matrix - limit * own).gt_(0.0))
        if root:
            matrix.sqrt_()
        ctx.save_for_backward(*given, matrix)
        return matrix

    @staticmethod
    def backward(ctx, upstream):
        a, b, matrix = ctx.saved_tensors
        centre = centre_of(b)
        a = a - centre
        b = a if ctx.same else b - centre
        # The derivative by a_i is factor·slope_ij·(a_i − b_j). 1e-37 makes it 0 where the distance is 0.
        factor = 1.0 if ctx.root else 2.0
        if torch.is_grad_enabled():  # this formula is differentiated again
            slope = upstream * (matrix / (matrix * matrix + 1e-37) if ctx.root else matrix.sign())
        elif ctx.root:
            slope = (matrix * matrix).add_(1e-37)
            torch.div(matrix, slope, out=slope).mul_(upstream)
        else:
            slope = matrix.sign().mul_(upstream)
        if ctx.same and len(a) <= SMALL:
            slope = slope + slope.T
            return torch.addmm(factor * slope.sum(1)[:, None] * a, slope, a, alpha=-factor), None, None, None
        of_rows, of_columns = factor * slope.sum(1)[:, None], factor * slope.sum(0)[:, None]
        if ctx.same:
            both = torch.addmm((of_rows + of_columns) * a, slope, a, alpha=-factor)
            return torch.addmm(both, slope.T, a, alpha=-factor), None, None, None
        to_a = torch.addmm(of_rows * a, slope, b, alpha=-factor) if ctx.needs_input_grad[0] else None
        to_b = torch.addmm(of_columns * b, slope.T, a, alpha=-factor) if ctx.needs_input_grad[1] else None
        return to_a, to_b, None, None


def centre_of(vectors):
    """The mean of `vectors` `(n, dim)` as `(1, dim)`, without a gradient; 0 in place of numbers that are not finite."""
    return vectors.detach().mean(0, keepdim=True).nan_to_num_(0.0, 0.0, 0.0)
