"""Siamese programs in the forms that people write: plain Keras, nothing of the package.

`PROGRAMS[name]()` gives `(model, inputs)`: a model and a batch as it takes it.
"""

import keras
import numpy as np
from keras import layers, ops

ROWS, STEPS, FEATURES = 6, 7, 3
PROGRAMS = {}


def form(make):
    PROGRAMS[make.__name__] = make
    return make


def signals(*more, rows=ROWS):
    rng = np.random.default_rng(len(more))
    return rng.normal(size=(rows, *more, STEPS, FEATURES)).astype("float32")


def tokens(seed):
    return np.random.default_rng(seed).integers(0, 9, (ROWS, STEPS)).astype("int32")


def encoder(dim=4, name="tower"):
    return keras.Sequential(
        [
            keras.Input((STEPS, FEATURES)),
            layers.Conv1D(5, 3, activation="relu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(dim),
        ],
        name=name,
    )


def sides(count=2):
    return [keras.Input((STEPS, FEATURES)) for _ in range(count)]


def distance(pair):
    return ops.sqrt(ops.sum(ops.square(pair[0] - pair[1]), axis=1, keepdims=True) + 1e-7)


def batch(count=2):
    return [signals() + 0.1 * number for number in range(count)]


@form
def absolute_difference():
    tower, ends = encoder(), sides()
    merged = layers.Lambda(lambda pair: ops.abs(pair[0] - pair[1]))([tower(end) for end in ends])
    return keras.Model(ends, layers.Dense(1, "sigmoid")(merged)), batch()


@form
def merged_by_layers():
    tower, ends = encoder(), sides()
    left, right = (tower(end) for end in ends)
    merged = layers.Concatenate()(
        [layers.Subtract()([left, right]), layers.Multiply()([left, right]), layers.Dot(1)([left, right])]
    )
    return keras.Model(
        ends, layers.Dense(1)(layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(8, "relu")(merged))))
    ), batch()


@form
def operations():
    tower, ends = encoder(), sides()
    return keras.Model(ends, distance([tower(end) for end in ends])), batch()


@form
def shared_layers():
    conv, dense, ends = layers.Conv1D(5, 3), layers.Dense(4), sides()
    return keras.Model(ends, distance([dense(ops.mean(ops.relu(conv(end)), axis=1)) for end in ends])), batch()


@form
def bidirectional_names():
    ends = [keras.Input((STEPS,), dtype="int32") for _ in range(2)]
    embed, lstm = layers.Embedding(9, 6, mask_zero=True), layers.Bidirectional(layers.LSTM(4))
    return keras.Model(ends, layers.Dot(1, normalize=True)([lstm(embed(end)) for end in ends])), [tokens(0), tokens(1)]


def masked_mean(embed, ids, mask):
    mask = ops.expand_dims(ops.cast(mask, "float32"), -1)
    return ops.sum(embed(ids) * mask, axis=1) / (ops.sum(mask, axis=1) + 1)


@form
def ids_and_masks():
    left, left_mask, right, right_mask = (keras.Input((STEPS,), dtype="int32") for _ in range(4))
    embed, dense = layers.Embedding(9, 6), layers.Dense(4)
    ends = [dense(masked_mean(embed, *side)) for side in ((left, left_mask), (right, right_mask))]
    inputs = [left, right, left_mask, right_mask]
    return keras.Model(inputs, distance(ends)), [tokens(0), tokens(1), tokens(2) % 2, tokens(3) % 2]


@form
def dicts_on_each_side():
    names = ("padding_mask", "token_ids")
    part = {name: keras.Input((STEPS,), dtype="int32", name=name) for name in names}
    tower = keras.Model(part, masked_mean(layers.Embedding(9, 4), part["token_ids"], part["padding_mask"]))
    ends = [
        {name: keras.Input((STEPS,), dtype="int32", name=f"{side}_{name}") for name in names} for side in ("a", "b")
    ]
    model = keras.Model(ends, layers.Lambda(distance)([tower(end) for end in ends]))
    return model, [{"padding_mask": tokens(i) % 2, "token_ids": tokens(i + 2)} for i in range(2)]


@form
def attention_between_sequences():
    conv, attend, ends = layers.Conv1D(4, 3), layers.Attention(), sides()
    left, right = (conv(end) for end in ends)
    met = layers.GlobalMaxPooling1D()(layers.Concatenate()([left, attend([left, right])]))
    return keras.Model(ends, layers.Dense(1, "sigmoid")(met)), batch()


@form
def skip_connection():
    tower, pool, ends = encoder(), layers.GlobalMaxPooling1D(), sides()
    gaps = [ops.abs(one(ends[0]) - one(ends[1])) for one in (tower, pool)]
    return keras.Model(ends, layers.Dense(1)(layers.Concatenate()(gaps))), batch()


@form
def inputs_beside_embeddings():
    tower, ends = encoder(), sides()
    gap = layers.Subtract()([layers.GlobalMaxPooling1D()(end) for end in ends])
    flat = [layers.Flatten()(end) for end in ends]
    return keras.Model(
        ends, layers.Dense(1)(layers.Concatenate()([*flat, gap, tower(ends[0]), tower(ends[1])]))
    ), batch()


@form
def raw_inputs_beside_embeddings():
    dense, ends = layers.Dense(4), [keras.Input((3,)) for _ in range(2)]
    met = layers.Concatenate()([*ends, layers.Dot(1)([dense(end) for end in ends])])
    return keras.Model(ends, layers.Dense(1)(met)), [signals()[:, 0], signals()[:, 1]]


@form
def two_classes():
    tower, ends = encoder(), sides()
    merged = ops.square(tower(ends[0]) - tower(ends[1]))
    return keras.Model(ends, layers.Dense(2, "softmax")(merged)), batch()


@form
def auxiliary_output():
    tower, ends = encoder(), sides()
    left, right = tower(ends[0]), tower(ends[1])
    return keras.Model(ends, [layers.Dense(5, "softmax")(left), distance([left, right])]), batch()


@form
def pairs_side_by_side():
    """One flat input of both items, which the model takes apart."""
    joint, tower = keras.Input((2 * FEATURES,)), layers.Dense(4, "tanh")
    left, right = ops.split(joint, 2, axis=1)
    return keras.Model(joint, layers.Dense(1, "sigmoid")(ops.abs(tower(left) - tower(right)))), np.concatenate(
        [signals()[:, 0], signals()[:, 1]], axis=1
    )


@form
def triplets_sliced_out_of_one_sequence():
    joint, tower = keras.Input((3 * STEPS, FEATURES)), encoder()
    anchor, positive, negative = (tower(joint[:, k * STEPS : (k + 1) * STEPS]) for k in range(3))
    distances = [distance([anchor, other]) for other in (positive, negative)]
    return keras.Model(joint, layers.Concatenate()(distances)), np.concatenate(batch(3), axis=1)


@form
def unshared():
    ends = sides()
    return keras.Model(ends, distance([encoder(name=f"net_{i}")(end) for i, end in enumerate(ends)])), batch()


@form
def preprocessed_on_one_side():
    tower, ends = encoder(), sides()
    return keras.Model(ends, distance([tower(layers.Rescaling(2.0)(ends[0])), tower(ends[1])])), batch()


@form
def nested_siamese():
    tower, inner, ends = encoder(), sides(), sides()
    inner = keras.Model(inner, distance([tower(end) for end in inner]))
    return keras.Model(ends, layers.Dense(1, "sigmoid")(inner(ends))), batch()


@form
def two_distances_in_a_list():
    tower, ends = encoder(), sides(3)
    embedded = [tower(end) for end in ends]
    return keras.Model(ends, [distance(embedded[:2]), distance(embedded[::2])]), batch(3)


@form
def two_distances_in_a_row():
    tower, ends = encoder(), sides(3)
    embedded = [tower(end) for end in ends]
    return keras.Model(ends, layers.Concatenate()([distance(embedded[:2]), distance(embedded[::2])])), batch(3)


@form
def concatenated_embeddings():
    tower, ends = encoder(), sides(3)
    return keras.Model(ends, layers.Concatenate()([tower(end) for end in ends])), batch(3)


@form
def stacked_embeddings():
    tower, ends = encoder(), sides(3)
    return keras.Model(ends, ops.stack([tower(end) for end in ends], axis=1)), batch(3)


@form
def list_of_embeddings():
    tower, ends = encoder(), sides(2)
    return keras.Model(ends, [tower(end) for end in ends]), batch()


@form
def joined_at_once():
    ends = sides()
    return keras.Model(ends, layers.Dense(1, "sigmoid")(layers.Flatten()(layers.Concatenate()(ends)))), batch()


@form
def stacked_pairs():
    both, tower = keras.Input((2, STEPS, FEATURES)), encoder()
    return keras.Model(both, distance([tower(both[:, 0]), tower(both[:, 1])])), signals(2)


@form
def stacked_pairs_cut_by_lambda():
    both, tower = keras.Input((2, STEPS, FEATURES)), encoder()
    ends = [layers.Lambda(lambda t, i=i: t[:, i])(both) for i in range(2)]
    return keras.Model(both, distance([tower(end) for end in ends])), signals(2)


@form
def split_channels():
    both, dense = keras.Input((STEPS, 2)), layers.Dense(4)
    ends = [dense(ops.squeeze(end, -1)) for end in ops.split(both, 2, axis=-1)]
    return keras.Model(both, distance(ends)), signals()[..., :2]


@form
def mixed_precision():
    ends = sides()
    tower = keras.Sequential([layers.Flatten(), layers.Dense(4, dtype="mixed_float16")])
    return keras.Model(ends, distance([tower(end) for end in ends])), batch()


class Comparing(keras.Model):
    def __init__(self):
        super().__init__()
        self.tower, self.head = encoder(), layers.Dense(1, "sigmoid")

    def call(self, inputs):
        left, right = inputs
        return self.head(ops.abs(self.tower(left) - self.tower(right)))


@form
def subclass_that_compares():
    model, inputs = Comparing(), batch()
    model(tuple(inputs))
    return model, tuple(inputs)


class Wrapping(keras.Model):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def call(self, inputs):
        return self.network(inputs)


@form
def subclass_around_a_functional_model():
    network, inputs = operations()
    return Wrapping(network), inputs


@form
def joined_in_channels():
    both = keras.Input((STEPS, 2))
    return keras.Model(both, layers.Dense(1, "sigmoid")(layers.Flatten()(layers.Conv1D(4, 3)(both)))), signals()[
        ..., :2
    ]


class Opaque(keras.Model):
    """Leaves Keras's operations, so it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.tower = encoder()

    def call(self, inputs):
        left, right = (self.tower(one) for one in inputs)
        if isinstance(left, keras.KerasTensor):
            raise TypeError("not a number")
        return distance([left, right])


@form
def subclass_that_cannot_be_traced():
    return Opaque(), batch()
