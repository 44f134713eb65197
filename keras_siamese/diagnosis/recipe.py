"""What is known of how a model is trained: its training data, as trials and as `fit` takes them, its loss and settings.

Contract: reads a model and what the user calls its training data, and trains nothing. What it gives are fields of
`Observed`.

    source, trials = training_of(anatomy, (x, labels))
    Observed(run, valid, scored, **recipe_of(anatomy, source))
"""

from dataclasses import replace

import keras
import numpy as np
from keras import tree

from keras_siamese.attach.feed import gather
from keras_siamese.attach.orient import orient, pairs_of
from keras_siamese.data import ExplicitPairs
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import take
from keras_siamese.diagnosis.facts.model import learning_rate_of
from keras_siamese.scoring import Trials, readable, spread_over_identities, spread_over_kinds

MAX_TRAIN_ITEMS = 1_000
MAX_TRAIN_PAIRS = 20_000


def training_of(anatomy, train, *, max_items=MAX_TRAIN_ITEMS, max_pairs=MAX_TRAIN_PAIRS):
    """`(source, trials)` of training data: what tells how training pairs are made, and some of them as `Trials`.

    These are at most `max_pairs` comparisons of at most `max_items` items; of given pairs, `max_items` pairs.

    Pairs as the model takes them become an `ExplicitPairs`. Without data both are None.
    """
    train = fed_of(train)
    is_fed = isinstance(train, (tuple, list)) and anatomy is not None
    if not is_fed or not anatomy.are_pairs(train[0]):
        return train, None if train is None else training_trials(train, max_items, max_pairs)
    x, y = gather(train, name="train")
    left, right, labels = pairs_of(anatomy, x, y)
    direction = anatomy.direction or orient(anatomy, left, right, labels, x=x, y=y)
    similar = 1 if y is None else direction.similar_label
    same = labels == similar
    rows = spread_over_kinds(same, max_items, np.random.default_rng(0))
    trials = Trials.from_pairs(take(left, rows), take(right, rows), same[rows])
    trials = replace(trials, rows=np.tile(rows, 2))
    items = tree.map_structure(lambda *sides: np.concatenate(sides), left, right)
    places = np.arange(len(same))
    similar_label = 0 if similar < labels.max() else 1
    return ExplicitPairs(items, places, places + len(same), same, similar_label=similar_label), trials


def training_trials(train, max_items=MAX_TRAIN_ITEMS, max_pairs=MAX_TRAIN_PAIRS):
    """Trials of at most `max_items` training items, from `(x, labels)` or a sequence with `x` and `labels`."""
    if isinstance(train, EpochSequence) and hasattr(train, "labels"):  # checked already: only what it takes is read
        kept = spread_over_identities(train.labels, max_items, np.random.default_rng(0))
        trials = Trials.from_labels(
            take(train.x, kept), train.identities[train.labels[kept]], max_pairs=max_pairs, name="train "
        )
        return replace(trials, rows=kept)
    if isinstance(train, (tuple, list)) and len(train) == 2:
        x, labels = train
    else:
        raise ValueError(
            f"`train` must be (x, labels) or a sequence with `x` and `labels`; got a {type(train).__name__}"
        )
    return Trials.from_labels(x, labels, max_items=max_items, max_pairs=max_pairs, name="train ")


def recipe_of(siamese, train, fed=None):
    """What the causes need to know of the recipe: the loss, what the model puts out, how training pairs are made, and
    what `fit` was `fed`.
    """
    model, loss = siamese.model, getattr(siamese.model, "loss", None)
    return {
        "loss": loss,
        "bounds": siamese.bounds,
        "output_kind": siamese.output_kind,
        "scale_free": siamese.scale_free,
        "positive_fraction": getattr(train, "positive_fraction", None),
        "data_similar_label": getattr(train, "similar_label", None),
        "siamese": siamese,
        "source": train,
        "fed": train if fed is None else fed,
        "learning_rate": learning_rate_of(model),
        "settings": {
            "model": type(model).__name__,
            "distance": None if siamese.distance is None else repr(siamese.distance),
            "loss": settings_of(loss),
            "train": None if not hasattr(train, "positive_fraction") else described(train, fed),
        },
    }


def described(train, fed):
    """A sequence of pairs in words. Of one that holds the arrays which `fit` was `fed`, only what is the user's own."""
    if isinstance(fed, (tuple, list)):
        return f"{train.pairs_per_epoch} pairs, {train.positive_fraction:.0%} of them genuine"
    return repr(train)


def fed_of(train):
    """Training data that can be read more than once, `(x, y)` or a sequence of this package; None without any."""
    if isinstance(train, (tuple, list)) and len(train) > 1 and train[1] is None:  # as fit takes a data set
        train = train[0] if not isinstance(train[0], (tuple, list, dict)) else tuple(train)
    return readable(train)


def settings_of(loss):
    """The class and options of a loss object, the name of a function, or whatever else `compile` was given, as text."""
    if isinstance(loss, keras.losses.Loss):
        return {"class": type(loss).__name__, **loss.get_config()}
    return getattr(loss, "__name__", None) or (None if loss is None else str(loss))
