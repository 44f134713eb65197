"""Call stack: who is calling, for hooks of Keras that are told less than they need.

Contract: standard library only; everything may import it. A caller that is not found must never be an error.

    adapter = next((one for one in callers(6) if getattr(one, "py_dataset", None) is self), None)
"""

import inspect
import itertools

__all__ = ["callers"]


def callers(depth=None):
    """The objects whose methods are running, from the one that called the asking function outwards.

    Args:
        depth: number of stack frames to look at, or None for all.

    Returns:
        A list of objects: the local variable `self` of each frame that has one.

    >>> class Dataset:
    ...     def hook(self):
    ...         return callers(3)
    >>> class Adapter:
    ...     def serve(self, dataset):
    ...         return dataset.hook()
    >>> adapter = Adapter()
    >>> adapter.serve(Dataset())[0] is adapter
    True
    """
    frame, found = inspect.currentframe().f_back.f_back, []
    for _ in itertools.count() if depth is None else range(depth):
        if frame is None:
            break
        if "self" in frame.f_locals:
            found.append(frame.f_locals["self"])
        frame = frame.f_back
    return found
