"""`diagnose`: the `Diagnosis` of a trained model, after the fact.

diagnosis = diagnose(siamese, train=(x, labels), validation=(x_valid, labels_valid), history=history)
print(diagnosis)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_siamese._checks import check_number
from keras_siamese._types import Data, StrPath
from keras_siamese.diagnosis.diagnosis import Diagnosis, diagnosis_of
from keras_siamese.diagnosis.experiments import probes
from keras_siamese.diagnosis.experiments.confirm import check_budget, tested
from keras_siamese.diagnosis.experiments.program import program_of
from keras_siamese.diagnosis.facts.model import probe as probe_steps
from keras_siamese.diagnosis.facts.references import check_callable, check_reference
from keras_siamese.diagnosis.observed import Observed, latest_of
from keras_siamese.diagnosis.recipe import fed_of, recipe_of, training_of
from keras_siamese.diagnosis.run import Run
from keras_siamese.scoring import attach, check_similar_label, readable
from keras_siamese.scoring import score as scored

# Of a labelled set. The error of an EER depends more on the number of identities; more items of each mostly cost time.
SAMPLE = MappingProxyType({"max_items": 2_000, "max_each": 8, "least_items": 400, "max_pairs": 50_000})


def diagnose(
    model: keras.layers.Layer,
    *,
    validation: Data,
    train: Data = None,
    history: keras.callbacks.History | Mapping[str, Sequence[float]] | StrPath | None = None,
    encoder: keras.layers.Layer | None = None,
    score: Callable[[Any, Any], Any] | None = None,
    threshold: float | None = None,
    target_eer: float | None = None,
    similar_label: int | None = None,
    probe: bool = False,
    confirm: bool = False,
    budget_epochs: float | None = None,
    budget_seconds: float | None = None,
    reference: Callable[..., Any] | None = None,
) -> Diagnosis:
    """Diagnoses a trained model: does it verify, did its run diverge, and why.

    Args:
        model: any siamese model, or an encoder; see `dissect`.
        validation: held-out `(x, labels)`, `(left, right, same)`, or a frozen `PairSequence`; or pairs as the model's
            own `evaluate` takes them, such as `([left, right], y)`.
        train: training data: `(x, labels)`, the `PairSequence` of the run, or what `fit` was given, `(x, y)` with `y`
            None for a data set or a generator. Without it some causes are not examined.
        history: curves of the run, with "loss", "val_auc" and "val_eer" an epoch as `VerificationMonitor` writes them:
            Keras's `History`, a dict, or the path of a run log (`DivergenceMonitor(log=…)`) or of CSVLogger's file;
            without it nothing is said about a divergence. A `DivergenceMonitor` knows more: the steps. Its training
            data, `threshold` and `target_eer` are used where none are given here.
        encoder: the encoder, where it cannot be found in the model.
        score: a function `(left, right) → (n,)` of the items of pairs, larger for more similar pairs, in place of the
            model's output; see `dissect`. What needs embeddings is then not examined.
        threshold: the score (−distance, or probability) from which your accuracy accepts a pair.
        target_eer: EER that you want, in (0, 1).
        similar_label: the label of a pair that means the same; by default 1 in `(left, right, same)`, and found in
            pairs as the model takes them.
        probe: whether to train for some hundred steps on the batches of `train`, a sequence, and put all weights back.
            It measures how far a step moves the weights, whether the network can overfit eight samples, whether another
            learning rate lowers the loss more, and how much more identities help, or samples without their augmentation
            (see `experiments.probes`).
            The model must be compiled.
        confirm: whether to test the leading causes: the repair of each is made in a copy of the run, which trains
            briefly beside a copy without it. The model is as before, bit for bit. It must be compiled, and `train` be
            given. See `experiments.confirm`.
        budget_epochs: epochs of training for all tests together, > 0; by default half of those in `history`, or 5.
            Implies `confirm`.
        budget_seconds: no further test begins after so many seconds. Implies `confirm`.
        reference: an encoder to compare the model with, such as a pretrained network: a Keras model, or a function of
            a batch of items `(n, …)`, as the model's encoder takes them, that gives embeddings `(n, dim)`. Its held-out
            pairs are scored by the cosine; see `facts.references`.

    Returns:
        A `Diagnosis`. If measuring a fact, or judging a cause, raises an error, a `callbacks.SideWorkWarning` gives it,
        what needs it is in `not_examined` with its `error`, and all others are reported.

    Raises:
        ValueError: if an argument is out of its range, if there are no genuine or no impostor pairs, if the history
            lacks a curve, or if no encoder is found in the model.
    """
    budget = check_budget(budget_epochs, budget_seconds)
    if target_eer is not None:
        check_number("target_eer", target_eer, low=0, high=1, open_low=True, open_high=True)
    threshold = None if threshold is None else check_number("threshold", threshold)
    run, seen = Run() if history is None else Run.of(history), latest_of(history)
    validation, similar_label = readable(validation), check_similar_label(similar_label)
    check_callable(reference)
    siamese, trials = attach(model, validation, encoder=encoder, score=score, similar_label=similar_label, **SAMPLE)
    check_reference(reference, trials.items)
    fed = fed_of(train)
    source, train_trials = training_of(siamese, fed)
    options = {"threshold": threshold, "target_eer": target_eer, "reference": reference}
    if seen is not None:
        source, train_trials, fed = recalled(seen, source, train_trials, fed)
        options = {name: getattr(seen, name) if value is None else value for name, value in options.items()}
        options |= {"still": seen.still, "default_threshold": threshold is None and seen.default_threshold}
    elif threshold is None and siamese.output_kind == "score" and run.has_accuracy:
        options |= {"threshold": 0.5, "default_threshold": True}
    valid, trained = (None if one is None else scored(siamese, one) for one in (trials, train_trials))
    if not valid.is_finite or not (trained is None or trained.is_finite):
        broken = trained if valid.is_finite else valid
        recipe = recipe_of(siamese, source, validation if fed is None else fed)
        run.not_finite_since = nan_from(run.curves)
        return diagnosis_of(Observed(run, broken, **recipe))
    options["probed"] = probe_steps(model, check_probe(model, train)) if probe else {}
    recipe = recipe_of(siamese, source, fed)
    if seen is not None and getattr(seen.siamese, "model", None) is model:  # experiments start as its run did
        recipe |= {"steps": seen.steps, "initial": seen.initial}
    observed = Observed(run, valid, trained, **options, **recipe)
    program = program_of(observed) if probe else None
    if program is not None:
        observed = replace(observed, probed=observed.probed | probes.probed(program, observed.source))
    diagnosis = diagnosis_of(observed)
    return tested(diagnosis, *budget, progress=True) if confirm or any(budget) else diagnosis


def recalled(seen, source, trials, fed):
    """`(source, trials, fed)` of the training data, where they tell less, or nothing, with what a monitor has `seen`
    instead: pairs that were shown tell more than items with their identities.
    """
    if trials is None:
        return seen.source, None if seen.train is None else seen.train.trials, seen.fed
    return (source if hasattr(source, "positive_fraction") else seen.source or source), trials, fed


def nan_from(curves):
    """Index of the epoch from which on no EER was measured, or None if that is not known."""
    measured = np.flatnonzero(np.isfinite(curves.get("eer", [])))
    return None if not curves.get("eer") else int(measured[-1]) + 1 if len(measured) else 0


def check_probe(model, train):
    """Returns the training sequence, if the model can be trained on it for a few steps."""
    is_compiled = getattr(model, "optimizer", None) is not None
    if not is_compiled or not hasattr(train, "__getitem__") or isinstance(train, tuple):
        has = f"a {type(train).__name__}" if is_compiled else "no optimizer"
        raise ValueError(f"`probe=True` must be given a compiled model and its training sequence as `train`; got {has}")
    return train
