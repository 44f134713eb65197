"""Seeds from which Keras initialises layers that are made within a block.

`seeded` is for code of the user, which may draw from Python's generator too. `own_seeds` is for layers that we copy
while a model trains: it leaves Python's generator alone, because a thread of the program may draw from it meanwhile,
such as a generator of training data.

    with own_seeds():
        copy = keras.models.clone_model(encoder)
"""

import random
import sys
from contextlib import contextmanager


@contextmanager
def seeded(seed):
    """Seeds Python's generator, from which Keras draws seeds of initializers and dropout; restores it afterwards."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def own_seeds(seed=0):
    """Let Keras draw seeds from a generator of ours; from Python's, if this version of Keras cannot be told to."""
    drawing = sys.modules.get("keras.src.random.seed_generator")
    source = getattr(drawing, "python_random", None)
    if source is None:
        with seeded(seed):
            yield
        return
    drawing.python_random = random.Random(seed)
    try:
        yield
    finally:
        drawing.python_random = source
