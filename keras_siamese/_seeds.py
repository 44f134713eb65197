"""Random states: seeds for layers that are made within a block, and what a block puts back.

Use `seeded` around code of the user: that code may itself draw from Python's generator. Use `own_seeds` around layers
that this package copies while a model trains. It does not touch Python's generator, because another thread of the
program may draw from it at the same time, such as a generator of training data.

    with own_seeds():
        copy = keras.models.clone_model(encoder)
"""

import random
import sys
from contextlib import contextmanager

import keras
import numpy as np


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


@contextmanager
def same_generators(python=False):
    """Put the global random states of Keras and PyTorch back at the end of the block; if `python`, also those of Python
    and NumPy, from which no thread may draw meanwhile.
    """
    torch, state = sys.modules.get("torch"), sys.modules.get("keras.src.backend.common.global_state")
    drawn = None if torch is None else torch.random.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch is not None and torch.cuda.is_initialized() else None
    generator = state.get_global_attribute("global_seed_generator")
    seed = None if generator is None else np.array(keras.ops.convert_to_numpy(generator.state))
    own = (random.getstate(), np.random.get_state()) if python else None
    try:
        yield
    finally:
        if drawn is not None:
            torch.random.set_rng_state(drawn)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        state.set_global_attribute("global_seed_generator", generator)
        if generator is not None:
            generator.state.assign(seed)
        if own is not None:
            random.setstate(own[0])
            np.random.set_state(own[1])


@contextmanager
def same_names():
    """Put back Keras's counters, from which new layers and models get their names, at the end of the block."""
    state = sys.modules.get("keras.src.backend.common.global_state")
    counters = state.get_global_attribute("object_name_uids")
    kept = None if counters is None else dict(counters)
    try:
        yield
    finally:
        now = state.get_global_attribute("object_name_uids")
        if now is not None:
            now.clear()
            now.update(kept or {})
