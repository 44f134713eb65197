"""Hyperparameter search for siamese networks with KerasTuner, evaluated on held-out identities.

    space = SearchSpace(loss=["ContrastiveLoss", "NTXentLoss"], relative_margin=Range(0.1, 0.7), embedding_dim=[32, 64])
    tuner = keras_tuner.BayesianOptimization(
        SiameseHyperModel(encoder, space), objective=objective("val_eer"), max_trials=30, directory="runs"
    )
    tuner.search(x, labels, cv=3, epochs=10)            # three folds a trial that share no identity
    print(SearchResults.of(tuner))                      # a table; .to_frame(), .to_html(path), .to_tensorboard(folder)

Contract: KerasTuner chooses what to try next, and saves, resumes and distributes the search. This package provides the
search space and the training of one trial: `space` defines what may vary, `recipe` builds model and data for one point
of it, `folds` trains and measures them, `hypermodel` and `grid` connect these to KerasTuner, `results` reads the
outcome. `oracle` chooses what to try next from the diagnosis of earlier trials: `repairs` says what a diagnosis would
change, `proposals` makes a new point of it. KerasTuner (extra `tuner`) is imported only when a search is created, or
with `SiameseHyperModel` and `DiagnosisOracle`, which are subclasses of its classes.
"""

from typing import TYPE_CHECKING, Any

from keras_siamese.tuning.grid import SiameseGridSearch
from keras_siamese.tuning.objectives import objective
from keras_siamese.tuning.results import SearchResults
from keras_siamese.tuning.space import Range, SearchSpace

if TYPE_CHECKING:
    from keras_siamese.tuning.hypermodel import SiameseHyperModel
    from keras_siamese.tuning.oracle import DiagnosisOracle

__all__ = [
    "DiagnosisOracle",
    "Range",
    "SearchResults",
    "SearchSpace",
    "SiameseGridSearch",
    "SiameseHyperModel",
    "objective",
]


def __getattr__(name: str) -> Any:
    if name == "SiameseHyperModel":
        from keras_siamese.tuning.hypermodel import SiameseHyperModel

        return SiameseHyperModel
    if name == "DiagnosisOracle":
        from keras_siamese.tuning.oracle import DiagnosisOracle

        return DiagnosisOracle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
