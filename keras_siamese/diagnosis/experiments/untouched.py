"""`untouched`: what training in a block changes is put back at its end, bit for bit.

Contract: weights, optimizer slots, BatchNormalization statistics, states of metrics and of seed generators, the global
generators of Python, NumPy, Keras and PyTorch, and the counters for names of layers are the same before and after the
block. The state of TensorFlow's own random operations (`tf.random`) is not put back.

    with untouched(model):
        model.train_on_batch(x, y)
"""

from contextlib import ExitStack, contextmanager

from keras_siamese._seeds import same_generators, same_names
from keras_siamese.diagnosis.facts.model import restored

OF_TRAINING = ("train_function", "stop_training")  # attributes of a model that are put back as well


@contextmanager
def untouched(*models):
    """Put back what the block changes in `models`, compiled or not, and in the global generators."""
    with ExitStack() as stack:
        stack.enter_context(same_generators(python=True))
        stack.enter_context(same_names())
        for model in models:
            stack.enter_context(restored(variables_of(model)))
            stack.enter_context(same_attributes(model, OF_TRAINING))
        yield


def variables_of(model):
    """All variables that training changes: those of the model, its optimizer and its metrics."""
    optimizer = getattr(model, "optimizer", None)
    held = [*model.variables, *getattr(model, "metrics_variables", ()), *getattr(optimizer, "variables", ())]
    return [one for one in {id(one): one for one in held}.values() if getattr(one, "_value", None) is not None]


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
