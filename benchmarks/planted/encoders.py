"""The encoders of the base programs, what they start from, and their optimizer.

encoder = pretrained(recipe, encoder_of(recipe, x.shape[1:]), seed)
"""

import keras

import keras_siamese as ks
from planted import texts
from planted.samples import prepared, samples_of

EMBEDDED = 16  # dimensions of a token


def input_of(recipe, shape):
    return keras.Input(shape, dtype="int32" if recipe["data"] == "tokens" else None)


def encoder_of(recipe, shape):
    layers = [input_of(recipe, shape)]
    if recipe["data"] == "tokens":
        layers += [
            keras.layers.Embedding(texts.BUCKETS, EMBEDDED, name="tokens"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.BatchNormalization(momentum=0.9),
        ]
        shape = (EMBEDDED,)
    if recipe["rescale"] != 1.0:
        layers.append(keras.layers.Rescaling(1 / recipe["rescale"]))
    layers += [keras.layers.Flatten()] if len(shape) > 1 else []
    for name in ("features", "more", "most")[: recipe["depth"]]:
        dense = keras.layers.Dense(recipe["width"], use_bias=not recipe["batch_normalization"], name=name)
        layers.append(dense)
        if recipe["batch_normalization"]:
            layers.append(keras.layers.BatchNormalization(momentum=recipe["momentum"]))
        layers += [keras.layers.Activation(recipe["activation"])]
    layers += [keras.layers.Dropout(recipe["dropout"])] if recipe["dropout"] else []
    layers += [keras.layers.Dense(recipe["embedding_dim"], name="embedding")]
    layers += [keras.layers.UnitNormalization()] if recipe["normalize"] else []
    encoder = keras.Sequential(layers)
    if recipe["trainable"] is not True:
        encoder.trainable = False
        if recipe["trainable"] == "head":
            for layer in encoder.layers:
                layer.trainable = layer.name == "embedding"
    return encoder


def optimizer_of(recipe):
    rate, steps = recipe["learning_rate"], recipe["batches"]
    if recipe["schedule"] == "restarts":
        rate = keras.optimizers.schedules.CosineDecayRestarts(rate, 4 * steps, t_mul=1.0)
    elif recipe["schedule"] == "warm-up":
        bounds = [4 * steps, 6 * steps]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(bounds, [rate / 50, rate / 5, rate])
    return keras.optimizers.Adam(rate)


def pretrained(recipe, encoder, seed):
    """The `encoder` as the recipe starts from it: new, or trained on other draws, perhaps with a new last layer."""
    if recipe["pretrained"]:
        pretrain(recipe, encoder, seed, scale=recipe["pretrained_at"])
    if recipe["new_head"]:
        last = encoder.get_layer("embedding")
        for weight, initializer in ((last.kernel, last.kernel_initializer), (last.bias, last.bias_initializer)):
            weight.assign(initializer(weight.shape))
    return encoder


def pretrain(recipe, encoder, seed, scale=1.0):
    """Trains the whole `encoder` on other draws of the data, like a backbone that is then frozen.

    If `scale` is not 1, the inputs are so many times as large, and shifted by as many of their spreads.
    """
    trainable = {layer.name: layer.trainable for layer in encoder.layers}
    encoder.trainable = True
    x, labels = samples_of(recipe["data"], seed + 500, recipe["noise"])
    x = prepared(x, recipe)
    x = x if scale == 1.0 else (scale * (x + x.std())).astype("float32")
    encoder.compile(keras.optimizers.Adam(2e-3), loss=ks.losses.BatchTripletLoss())
    encoder.fit(ks.data.BalancedBatchSequence(x, labels, batches_per_epoch=60, frozen=True), verbose=0)
    for layer in encoder.layers:
        layer.trainable = trainable[layer.name]
