"""Programs that several tests of experiments change and run, trained once."""

import pytest

from keras_siamese.diagnosis.experiments.program import program_of
from tests.support import small_programs


def observed_and_program(fitted):
    observed = fitted[1].diagnosis.observed
    return program_of(observed), observed


@pytest.fixture(scope="session")
def pairs():
    """`(program, observed)` of a siamese model on a sequence with few genuine pairs."""
    return observed_and_program(small_programs.fitted(epochs=1, positive_fraction=0.1, norm=True))


@pytest.fixture(scope="session")
def plain():
    """The same of a plain Keras program on arrays of pairs."""
    return observed_and_program(small_programs.plain(epochs=1))


@pytest.fixture(scope="session")
def batchwise():
    """The same of an encoder with a loss over batches of identities."""
    return observed_and_program(small_programs.batchwise(epochs=1))
