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
from keras_siamese.diagnosis.facts.inputs import kind_of, of_inputs
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
from keras_siamese.losses import MatryoshkaLoss

# The functions that measure facts, in their order, and those of their facts without which a cause is not examined.
NEEDED = {
    of_history: ("epochs", "verifies_badly", "update_size_first", "update_size_largest"),
    of_verification: ("auc", "eer", "below_chance", "threshold", "accuracy_lost"),
    of_embeddings: ("spread", "spacing", "swap_gain", "eer_cosine", "eer_euclidean"),
    of_training: ("train_auc", "train_eer", "gap", "untrained_distance"),
    of_references: (),
    of_loss: ("margin", "temperature", "genuine_loss", "impostor_loss", "implied_fraction"),
    of_output: (
        "equal_end",
        "wanted_end",
        "head_is_scalar",
        "loss_falls_for_ever",
        "out_of_reach",
        "out_of_reach_least",
    ),
    of_pairs: ("share_of_two", "drawn_identities", "identical_genuine", "weighted_positive_fraction"),
    of_inputs: ("input_scale",),
    of_preparation: ("held_out_spread",),
    of_exchange: (),
    of_model: ("batch_normalization", "trainable_share", "unshared", "biases_moved", "weights_grown"),
    of_labels: ("impostor_like",),
    of_leakage: ("duplicates", "shared_names"),
}


@dataclass(frozen=True)
class Facts:
    """Measured values by name.

    Attributes:
        numbers: name → number.
        words: name → text: what things are called, for advice.
        rows: name → rows of the training data, for advice.
        errors: name of a function that measures facts → the error that it raised; its facts are missing.
    """

    numbers: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    rows: dict = field(default_factory=dict)
    errors: dict = field(default_factory=dict)

    def __getitem__(self, name):
        return self.numbers[name]

    def __contains__(self, name):
        return name in self.numbers

    def get(self, name, default=None):
        return self.numbers.get(name, default)

    def error_of(self, name):
        """The error because of which the fact `name` is missing, or None."""
        parts = [part.__name__ for part, given in NEEDED.items() if name in given]
        return next((self.errors[part] for part in parts if part in self.errors), None)

    def to_dict(self):
        return {name: value for name, value in asdict(self).items() if value or name != "errors"}


def measure(observed):
    """All `Facts` that can be measured of a run, as it was `observed`."""
    loss = "" if observed.loss is None else "ContrastiveLoss"
    if observed.character.is_stated:  # advice is for the loss within a `MatryoshkaLoss`, which has the options
        loss = type(observed.loss.loss if isinstance(observed.loss, MatryoshkaLoss) else observed.loss).__name__
    words = {"loss": loss, "distance": observed.settings.get("distance") or "", "output": observed.output_kind}
    if observed.valid is not None:
        words["samples"] = kind_of(observed.valid.trials.items)
    words["loss_distance"] = repr(observed.loss.distance) if hasattr(observed.loss, "distance") else ""
    errors = {}
    if not observed.is_finite:  # no score can be measured
        numbers, rows = measured(of_gradients, observed, errors, ({}, {}))
        numbers |= {
            "not_finite": 1,
            "learning_rate": observed.learning_rate,
            **measured(step_sizes, observed, errors, {}),
        }
        return Facts(known(numbers), words, rows, errors)
    if observed.siamese is not None:
        words["frozen_layers"] = ", ".join(measured(frozen_layers, observed, errors, ()))
    numbers, rows = {}, {}
    for part in NEEDED:
        found = measured(part, observed, errors, {})
        found, where = found if isinstance(found, tuple) else (found, {})
        numbers, rows = numbers | found, rows | where
    return Facts(known(numbers), words, rows, errors)


def measured(part, observed, errors, otherwise):
    """What the function `part` measures of a run. If it raises, `otherwise`, and the error is added to `errors`."""
    try:
        return part(observed)
    except Exception as error:
        then = "what needs them is not examined, and the other facts and causes are"
        kept = observed.side.failed(f"Measuring the facts {part.__name__}", error, then=then)
        errors[part.__name__] = f"{kept.why} ({kept.where})"
        return otherwise


def known(numbers):
    """Those of the `numbers` that were measured, as floats."""
    return {name: float(value) for name, value in numbers.items() if value is not None and not np.isnan(value)}
