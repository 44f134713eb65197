"""`untouched`: what training in a block changes is put back at its end, bit for bit.

Contract: weights, optimizer slots, BatchNormalization statistics, states of metrics and of seed generators, and the
global generators of Python, NumPy, Keras and PyTorch are the same before and after the block. Numbers that TensorFlow's
own operations draw (`tf.random`) are not put back.

    with untouched(model):
        model.train_on_batch(x, y)
"""

import random
from contextlib import ExitStack, contextmanager

import keras
import numpy as np

from keras_siamese.diagnosis.facts.model import restored

OF_TRAINING = ("train_function", "stop_training")  # attributes of a model that are put back as well


@contextmanager
def untouched(*models):
    """Put back what the block changes in `models`, compiled or not, and in the global generators."""
    with ExitStack() as stack:
        stack.enter_context(same_generators())
        for model in models:
            stack.enter_context(restored(variables_of(model)))
            stack.enter_context(same_attributes(model, OF_TRAINING))
        yield


def variables_of(model):
    """All variables that training changes: those of the model, its optimizer and its metrics."""
    optimizer = getattr(model, "optimizer", None)
    held = [*model.variables, *getattr(model, "metrics_variables", ())]
    return held if optimizer is None else [*held, *optimizer.variables]


@contextmanager
def same_attributes(thing, names, **values):
    """Put the attributes `names` of `thing` back at the end of the block, in which some have other `values`."""
    kept = {name: getattr(thing, name) for name in names if hasattr(thing, name)}
    try:
        for name, value in values.items():
            setattr(thing, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(thing, name, value)


@contextmanager
def same_generators():
    """Put the states of the global random generators back at the end of the block."""
    python, numpy, torch = random.getstate(), np.random.get_state(), None
    if keras.backend.backend() == "torch":
        import torch

        drawn = torch.get_rng_state()
    shared = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
    try:
        with restored([] if shared is None else [shared.state]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(drawn)
