"""Measures all facts of a run, one module of this folder after another.

Contract: `measure` takes what is known of a run (`observed.Observed`) and gives `Facts`; what the run does not allow to
be measured is not in them. The causes see nothing else, so a run can be judged again from its facts alone.

    facts = measure(run)
    facts["eer"], facts.get("train_eer"), "margin" in facts
"""

import numpy as np

from keras_siamese.diagnosis.facts.embeddings import of_embeddings, of_swaps
from keras_siamese.diagnosis.facts.inputs import of_inputs
from keras_siamese.diagnosis.facts.labels import of_labels
from keras_siamese.diagnosis.facts.leakage import of_leakage
from keras_siamese.diagnosis.facts.loss import of_loss
from keras_siamese.diagnosis.facts.model import of_model
from keras_siamese.diagnosis.facts.pairs import of_pairs
from keras_siamese.diagnosis.facts.run import of_run
from keras_siamese.diagnosis.facts.table import Facts
from keras_siamese.diagnosis.facts.training import of_training
from keras_siamese.diagnosis.facts.verification import of_verification


def measure(run):
    """`Facts` of the `run`: all that it allows to be measured."""
    words = {
        "loss": type(run.loss).__name__ if run.character.is_stated else ("" if run.loss is None else "ContrastiveLoss"),
        "distance": run.settings.get("distance") or "",
        "output": run.output_kind,
    }
    numbers, rows = {}, {}
    for group in (
        of_run,
        of_verification,
        of_embeddings,
        of_swaps,
        of_training,
        of_loss,
        of_pairs,
        of_inputs,
        of_model,
    ):
        numbers |= group(run)
    for group in (of_labels, of_leakage):
        found, where = group(run)
        numbers, rows = numbers | found, rows | where
    known = {name: float(value) for name, value in numbers.items() if value is not None and not np.isnan(value)}
    return Facts(known, words, rows)
