"""Tuning: a siamese network's hyperparameters, searched by KerasTuner and measured on identities held out.

    space = SearchSpace(loss=["ContrastiveLoss", "NTXentLoss"], relative_margin=Range(0.1, 0.7), embedding_dim=[32, 64])
    tuner = keras_tuner.BayesianOptimization(
        SiameseHyperModel(encoder, space), objective=objective("val_eer"), max_trials=30, directory="runs"
    )
    tuner.search(x, labels, cv=3, epochs=10)            # three folds a trial that share no identity
    print(SearchResults.of(tuner))                      # a table; .to_frame(), .to_html(path), .to_tensorboard(folder)

Contract: what to try next, what is saved, resumed or shared among workers is KerasTuner's; ours is the space, and what
one trial does. `space` says what may vary, `recipe` what a point of it is made of, `folds` how it is measured,
`hypermodel` and `grid` bring these to KerasTuner, `results` reads what came of it. KerasTuner (extra `tuner`) is
imported when a search is made, or `SiameseHyperModel`, which derives from a class of it, is asked for.
"""

from keras_siamese.tuning.grid import SiameseGridSearch
from keras_siamese.tuning.objectives import objective
from keras_siamese.tuning.results import SearchResults
from keras_siamese.tuning.space import Range, SearchSpace

__all__ = ["Range", "SearchResults", "SearchSpace", "SiameseGridSearch", "SiameseHyperModel", "objective"]


def __getattr__(name):
    if name == "SiameseHyperModel":
        from keras_siamese.tuning.hypermodel import SiameseHyperModel

        return SiameseHyperModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
