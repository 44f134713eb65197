"""Recipe of a trial: from its hyperparameter values to the compiled model, the batches and the callbacks.

Contract: `values` are those of `SearchSpace.declare`, by name. Losses on pairs or triplets are used with a siamese
network and a `PairSequence` or `TripletSequence`, batch losses with the encoder itself and a `BalancedBatchSequence`.

    model = compiled_model(space, values, encoder)
    model.fit(batches_of(space, values, x, labels, seed=0, augment=None), epochs=10)
"""

import inspect

import keras

from keras_siamese import distances
from keras_siamese.attach.anatomy import compares
from keras_siamese.callbacks import HardPairRefresh
from keras_siamese.data import BalancedBatchSequence, PairSequence, TripletSequence, image_augmenter
from keras_siamese.layers import SiameseWrapper


def parameters_of(function):
    """The parameters of a function by name, each with whether it has no default, and whether it takes any other."""
    parameters = inspect.signature(function).parameters.values()
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return {one.name: one.default is one.empty for one in named}, takes_all


def compiled_model(space, values, encoder):
    """Builds the model for `values` around a new `encoder`, and compiles it."""
    loss = space.losses[values["loss"]]
    compares = SiameseWrapper(encoder, values.get("distance", "cosine"))
    options = loss.get_config()
    if "distance" in options and "distance" in values:
        options["distance"] = values["distance"]
    if "margin" in values:
        options["margin"] = values["margin"]
    if "relative_margin" in values:
        options["margin"] = values["relative_margin"] * reach(loss, compares)
    if "negatives" in options and values["mining"] != "none":
        options["negatives"] = values["mining"]
    model = compares
    if loss.expects == "score":
        head = space.heads[values["head"]]
        model = SiameseWrapper(encoder, values["distance"], head=head() if callable(head) else head)
    elif loss.kind == "batch":
        model = encoder if isinstance(encoder, keras.Model) else keras.Sequential([encoder])
    optimizer = type(keras.optimizers.get(values["optimizer"]))(learning_rate=values["learning_rate"])
    model.compile(optimizer, loss=type(loss).from_config(options))
    return model


def siamese_of(model):
    """The model itself if it compares inputs, or else a siamese network around it that gives Euclidean distances."""
    return model if isinstance(model, SiameseWrapper) or compares(model) else SiameseWrapper(model, "euclidean")


def reach(loss, siamese):
    """The largest margin that a loss can reach on the distances of a siamese network."""
    low, high = siamese.distance_bounds()
    if high == float("inf") or high <= 0:
        found = f"{siamese.distance!r} of this encoder is in [{low:g}, {high:g}]"
        hint = "End the encoder with UnitNormalization, or give `margin` in units of the distance"
        raise ValueError(f"`relative_margin` needs distances with an upper bound above 0; {found}. {hint}")
    options = loss.get_config()
    if "beta" in options:
        return min(high - options["beta"], options["beta"] - low)
    return high - low if loss.kind == "triplet" or "negatives" in options else high


def batches_of(space, values, x, labels, seed, augment):
    """The training sequence of samples `x` `(n, …)` and `labels` `(n,)`."""
    strength = values.get("augmentation", 0)
    options = {"seed": seed, "augment": (augment or augment_images)(strength) if strength else None}
    kind = space.losses[values["loss"]].kind
    if kind == "batch":
        makeup = {name: values[name] for name in ("classes_per_batch", "samples_per_class")}
        return BalancedBatchSequence(x, labels, **makeup, **options)
    options["batch_size"] = values["batch_size"]
    if kind == "triplet":
        return TripletSequence(x, labels, **options)
    return PairSequence(x, labels, positive_fraction=values["positive_fraction"], **options)


def augment_images(strength):
    """Rotations of 30°, shifts of a tenth and zooms of a fifth, each times `strength`."""
    shift, zoom = min(0.1 * strength, 0.9), min(0.2 * strength, 0.9)
    shifts = {"width_shift_range": shift, "height_shift_range": shift}
    return image_augmenter(rotation_range=30 * strength, zoom_range=zoom, **shifts)


def mining_callbacks(space, values, sequence):
    """The callbacks that mine hard pairs or triplets; batch losses do their own mining."""
    mines = values.get("mining") == "hard" and space.losses[values["loss"]].kind != "batch"
    return [HardPairRefresh(sequence)] if mines else []


def compared_by(space, values):
    """`{"distance": …}` if the monitor must be told how to compare the embeddings of an encoder, else `{}`."""
    if space.losses[values["loss"]].kind != "batch" or "distance" not in values:
        return {}
    return {"distance": distances.get(values["distance"])}
