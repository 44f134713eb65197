"""Seeds for layers that Keras makes for us, without a change of Python's random state.

Keras draws the seed of each new initializer from Python's global generator. Putting its state back afterwards would
also undo what a thread of the user's program has drawn meanwhile, such as a generator of training data.

    with own_seeds():
        copy = keras.models.clone_model(encoder)
"""

import contextlib
import random

from keras.src.random import seed_generator


@contextlib.contextmanager
def own_seeds(seed=0):
    """Let Keras draw seeds from a generator of ours within the block."""
    source = seed_generator.python_random
    seed_generator.python_random = random.Random(seed)
    try:
        yield
    finally:
        seed_generator.python_random = source
