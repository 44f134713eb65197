"""The table of facts: what was measured of a run, by name. The causes and the report read nothing else.

Contract: `measure` takes what is known of a run (`observed.Observed`) and gives `Facts`. What the run does not allow to
be measured is missing from them. A run can be judged again from its facts alone.

    facts = measure(observed)
    facts["eer"], facts.get("train_eer"), "margin" in facts
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from keras_siamese.diagnosis.facts.embeddings import of_embeddings
from keras_siamese.diagnosis.facts.exchange import of_exchange
from keras_siamese.diagnosis.facts.gradients import of_gradients
from keras_siamese.diagnosis.facts.inputs import of_inputs
from keras_siamese.diagnosis.facts.labels import of_labels
from keras_siamese.diagnosis.facts.leakage import of_leakage
from keras_siamese.diagnosis.facts.loss import of_loss
from keras_siamese.diagnosis.facts.model import frozen_layers, of_model
from keras_siamese.diagnosis.facts.output import of_output
from keras_siamese.diagnosis.facts.pairs import of_pairs
from keras_siamese.diagnosis.facts.preparation import of_preparation
from keras_siamese.diagnosis.facts.references import of_references
from keras_siamese.diagnosis.facts.training import of_history, of_training, step_sizes
from keras_siamese.diagnosis.facts.verification import of_verification


@dataclass(frozen=True)
class Facts:
    """Measured values by name.

    Attributes:
        numbers: name → number.
        words: name → text: what things are called, for advice.
        rows: name → rows of the training data, for advice.
    """

    numbers: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)

    def __getitem__(self, name):
        return self.numbers[name]

    def __contains__(self, name):
        return name in self.numbers

    def get(self, name, default=None):
        return self.numbers.get(name, default)

    def to_dict(self):
        return asdict(self)


def measure(observed):
    """All `Facts` that can be measured of a run, as it was `observed`."""
    loss = "" if observed.loss is None else "ContrastiveLoss"
    if observed.character.is_stated:
        loss = type(observed.loss).__name__
    words = {"loss": loss, "distance": observed.settings.get("distance") or "", "output": observed.output_kind}
    words["loss_distance"] = repr(observed.loss.distance) if hasattr(observed.loss, "distance") else ""
    if not observed.is_finite:  # no score can be measured
        numbers, rows = of_gradients(observed)
        numbers |= {"not_finite": 1, "learning_rate": observed.learning_rate, **step_sizes(observed)}
        return Facts(known(numbers), words, rows)
    if observed.siamese is not None:
        words["frozen_layers"] = ", ".join(frozen_layers(observed))
    numbers, rows = {}, {}
    for part in (
        of_history,
        of_verification,
        of_embeddings,
        of_training,
        of_references,
        of_loss,
        of_output,
        of_pairs,
        of_inputs,
        of_preparation,
        of_exchange,
        of_model,
    ):
        numbers |= part(observed)
    for part in (of_labels, of_leakage):
        found, where = part(observed)
        numbers, rows = numbers | found, rows | where
    return Facts(known(numbers), words, rows)


def known(numbers):
    """Those of the `numbers` that were measured, as floats."""
    return {name: float(value) for name, value in numbers.items() if value is not None and not np.isnan(value)}
