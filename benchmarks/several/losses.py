"""All losses of the package, trained in one model with an encoder for each, so that a backend compiles once.

cases = [case for case in loss_cases() if case[0] in KINDS]
losses_trainer(is_all=False)(27)["NTXentLoss"]["curve"]
"""

import functools

from several.parts import (
    array,
    compiled,
    data_of,
    encoder_of,
    fitted,
    is_several,
    loop_with_ddp,
    own_part,
    seed_weights,
    seeded,
    trained,
)

# One loss of each kind of sum, where all of them would take too long
KINDS = ("NTXentLoss", "BatchTripletLoss", "HistogramLoss", "BarlowTwinsLoss", "ProxyAnchorLoss", "ArcFaceLoss")
KINDS += ("OnlineContrastiveLoss", "NTXentLoss, blocks", "NTXentLoss, sum", "TripletLoss")


def loss_cases():
    """`(name, loss, heads)` for each loss of the package that takes the output of an encoder, distances or cosines."""
    import inspect

    import keras_siamese as ks

    classes = {name: getattr(ks.losses, name) for name in ks.losses.__all__}
    bases = ("BatchLoss", "PairLoss", "ProxyLoss", "SiameseLoss", "NpairsLoss", "NpairsMultilabelLoss")
    options = {
        "RankedListLoss": {"margin": 0.4, "negative_temperature": 10.0},
        "WeightedBinaryCrossentropy": {"class_weight": "balanced"},
        "ArcFaceLoss": {"scale": 8.0},
        "CosFaceLoss": {"scale": 8.0},
        "SubCenterArcFaceLoss": {"scale": 8.0},
        "NormalizedSoftmaxLoss": {"temperature": 0.5},
        "ProxyAnchorLoss": {"scale": 8.0},
        "CircleLoss": {"scale": 8.0},
        "TupletMarginLoss": {"scale": 8.0},
        "MultiSimilarityLoss": {"beta": 8.0},
        "MatryoshkaLoss": {"loss": ks.losses.NTXentLoss(), "dims": [2, 1]},
    }
    for name, cls in classes.items():
        if name not in bases and inspect.isclass(cls):
            yield name, cls(**options.get(name, {}))
    yield "NTXentLoss, blocks", ks.losses.NTXentLoss(block_size=4)
    yield "HistogramLoss, blocks", ks.losses.HistogramLoss(block_size=4)
    yield "NTXentLoss, sum", ks.losses.NTXentLoss(reduction="sum")
    yield "ContrastiveLoss, sum", ks.losses.ContrastiveLoss(reduction="sum")


def losses_model(cases):
    """One model with an encoder for each loss: `(model, weights, targets)`.

    `weights` holds the weights of each loss, and `targets(labels, same)` is the list of y.
    """
    import keras

    import keras_siamese as ks

    left, right, third = (keras.Input((6,)) for _ in range(3))
    outputs, weights, kinds = [], [], []
    for _, loss in cases:
        encoder = encoder_of()
        kind = "same" if loss.expects in ("distance", "score") else "labels"
        if isinstance(loss, ks.losses.TripletLoss):
            layers, inputs = [ks.SiameseWrapper(encoder)], (left, right, third)
        elif kind == "same":
            head = "logistic" if loss.expects == "score" else None
            layers, inputs = [ks.SiameseWrapper(encoder, head=head)], (left, right)
        else:
            layers, inputs = [encoder], left
        if loss.expects == "cosine":
            layers.append(ks.layers.ProxyLogits(12, centers_per_class=2 if loss.several_centers else 1))
        output = inputs
        for layer in layers:
            output = layer(output)
        outputs.append(output)
        weights.append([weight for layer in layers for weight in layer.trainable_weights])
        kinds.append(kind)
    model = keras.Model([left, right, third], outputs)
    return model, weights, lambda labels, same: [labels if kind == "labels" else same for kind in kinds]


@functools.cache
def losses_trainer(is_all):
    """Function of a number of rows: trains all losses on them, or one of each kind, from the same weights."""
    import keras
    import numpy as np

    cases = [case for case in loss_cases() if is_all or case[0] in KINDS]
    names, losses = zip(*cases, strict=True)
    model, weights, targets = losses_model(cases)
    model.compile(keras.optimizers.SGD(0.05), loss=list(losses))

    def train(rows):
        for own in weights:  # whichever losses there are beside it
            seed_weights(own)
        x, labels = data_of(rows)
        other, third = data_of(rows, seed=3)[0], data_of(rows, seed=4)[0]
        labels[1::2] = labels[::2][: len(labels[1::2])]  # neighbouring rows are positives, as two views of an image
        same = (np.arange(rows) % 2).astype("float32")
        history = fitted(model, losses, [x, other, third], targets(labels, same))
        curves = [history[f"{output}_loss"] for output in model.output_names]
        found = zip(names, curves, weights, strict=True)
        if rows % 16:  # Keras reports the losses of several outputs as means of means if the last batch is smaller
            return {name: {"weights": list(map(array, own))} for name, _, own in found}
        return {name: {"curve": curve, "weights": list(map(array, own))} for name, curve, own in found}

    return train


def local_training():
    """By the number of devices: two steps in which each compares its own rows. One device gives it for 2 and for 4."""
    import keras
    import numpy as np

    import keras_siamese as ks
    from keras_siamese._replicas import device_count, replica_context

    x, found = data_of(32)[0], {}
    labels = np.tile([0, 0, 1, 1], 8)
    devices = device_count() if replica_context() is None else replica_context().num_replicas_in_sync
    for parts in (2, 4) if devices == 1 else (devices,):

        def by_parts(labels, z, parts=parts):
            pairs = zip(keras.ops.split(labels, parts), keras.ops.split(z, parts), strict=True)
            return sum(ks.losses.NTXentLoss()(*pair) for pair in pairs) / parts

        loss = by_parts if devices == 1 else ks.losses.NTXentLoss(local_negatives=True)
        model = compiled(seeded(encoder_of()), loss)
        if keras.backend.backend() == "torch" and is_several():
            (curve,) = loop_with_ddp(model, [loss], [x], [labels], batch_size=32).values()
            found[str(parts)] = {"loss": curve, "weights": [array(weight) for weight in model.trainable_weights]}
        else:
            own, y, batch_size = own_part(32, x, labels)
            found[str(parts)] = trained(model, own, y=y, batch_size=batch_size)
    return found


def similarity_training():
    import keras

    import keras_siamese as ks

    encoder = seeded(encoder_of())
    inputs = keras.Input((6,))
    z = encoder(inputs)
    model = compiled(keras.Model(inputs, keras.ops.matmul(z, keras.ops.transpose(z))), ks.losses.NpairsLoss())
    x, labels = data_of(32)
    x, labels, batch_size = own_part(16, x, labels)
    return model.fit(x, labels, batch_size=batch_size, epochs=2, shuffle=False, verbose=0).history["loss"]
