"""Losses on two replicas of a TensorFlow strategy: values, gradients and weights are those of one device."""

import json
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import _replicas, data, layers, losses
from keras_siamese._export import exported
from keras_siamese._replicas import gathered, refuse_replicas, weighted_by_rows
from keras_siamese.attach.feed import batches_of
from keras_siamese.callbacks import PartialFC
from keras_siamese.callbacks.fitting import fit
from keras_siamese.losses.batch.base import EmbeddingLoss
from tests.support.batches import REQUIRED
from tests.support.fresh_python import fresh, virtual_devices

IS_OLD = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 8)
TRAINED = """
import json, sys
import tensorflow as tf
(device,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, 2 * [tf.config.LogicalDeviceConfiguration()])
import keras, numpy as np, keras_siamese as ks
from keras_siamese._replicas import value_of
rng = np.random.default_rng(0)
labels = rng.permutation(np.repeat(np.arange(8), 8))  # identities lie on both replicas
x = (rng.normal(size=(8, 6))[labels] + rng.normal(size=(64, 6))).astype("float32")
pairs = (x[::2], x[1::2]), (labels[::2] == labels[1::2]).astype("float32")
weights = {rows: rng.normal(size=(rows, 4)).astype("float32") for rows in (6, 4)}

def model_of(loss):
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False), ks_unit()])
    if loss.expects == "embedding":
        return encoder, x, labels
    if loss.expects == "cosine":
        proxies = keras.Sequential([encoder, ks.layers.ProxyLogits(8, dims=getattr(loss, "dims", None))])
        return proxies, x, labels
    return ks.SiameseWrapper(encoder, head="logistic" if loss.expects == "score" else None), *pairs

def ks_unit():
    return keras.layers.UnitNormalization()

strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = {}
for name, options in json.loads(sys.argv[1]).items():
    outcomes = []
    for strategy in strategies:
        with strategy.scope():
            keras.utils.set_random_seed(1)
            loss = getattr(ks.losses, name.removesuffix(", cut"))(**options)
            loss = ks.losses.MatryoshkaLoss(loss, [4, 2]) if name.endswith(", cut") else loss
            model, inputs, targets = model_of(loss)
            model.compile(keras.optimizers.SGD(0.05), loss)
        history = model.fit(inputs, targets, batch_size=32, epochs=3, shuffle=False, verbose=0).history["loss"]
        outcomes.append([history, [weight.numpy().ravel().tolist() for weight in model.trainable_weights]])
        with strategy.scope():  # a whole number, of which each replica has a copy
            assert int(value_of(model.optimizer.iterations)) >= 3
    (losses, first), (others, second) = outcomes
    apart = max(np.abs(np.subtract(one, other)).max() for one, other in zip(first, second))
    found[name] = [float(np.abs(np.subtract(losses, others)).max()), float(apart)]
print(json.dumps(found))
"""
COMPARING = {  # of each kind of sum: over anchors, over all triplets, over proxies, within the batch
    "NTXentLoss": {},
    "SupConLoss": {},
    "BatchTripletLoss": {},
    "MultiSimilarityLoss": {},
    "SmoothAPLoss": {},
    "HistogramLoss": {},
    "RankedListLoss": {"margin": 0.4, "negative_temperature": 10.0},
    "LiftedStructLoss": {},
    "ProxyAnchorLoss": {},
    "ArcFaceLoss": {"scale": 8.0},
    "OnlineContrastiveLoss": {},
    "ContrastiveLoss": {},
    "WeightedBinaryCrossentropy": {"class_weight": "balanced"},
    "OnlineContrastiveLoss, cut": {},
    "ArcFaceLoss, cut": {"scale": 8.0},
}


@pytest.mark.deep
@pytest.mark.tensorflow
@pytest.mark.skipif(IS_OLD, reason="Keras below 3.8 adds up the gradients of replicas")
def test_training_on_two_replicas_is_training_on_one():
    """Two batches of 32 rows, three epochs: loss curves and weights."""
    found = fresh(TRAINED, json.dumps(COMPARING))
    assert set(found) == set(COMPARING)
    wrong = {name: apart for name, apart in found.items() if max(apart) > 2e-5}
    assert not wrong


ON_BATCH = """
import json
import tensorflow as tf
(device,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, 2 * [tf.config.LogicalDeviceConfiguration()])
import keras, numpy as np, keras_siamese as ks
rng = np.random.default_rng(0)
x, labels = rng.normal(size=(11, 6)).astype("float32"), np.arange(11) // 3
weight = np.linspace(0.2, 2.0, 11).astype("float32")

class Own(keras.Sequential):
    def train_on_batch(self, x, y):  # a part of the batch to each replica, by the user
        def part(context):
            count, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
            return np.array_split(x, count)[number], np.array_split(y, count)[number]
        self.make_train_function()
        self.train_function(iter([self.distribute_strategy.experimental_distribute_values_from_function(part)]))
        return [float(value) for value in self.get_metrics_result().values()]

def outcome(strategy, reduction, fitted, kind=keras.Sequential):
    with strategy.scope():
        keras.utils.set_random_seed(1)
        loss = ks.losses.NTXentLoss(reduction=reduction)
        model = kind([keras.Input((6,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
        model.compile(keras.optimizers.SGD(0.05), loss, metrics=loss.metrics())
    if fitted:  # what was compiled for the parts of a batch is not used for a whole one
        model.fit(x[:10], labels[:10], batch_size=10, verbose=0)
    if kind is Own:
        logs = model.train_on_batch(x, labels)
    else:
        logs = [*model.train_on_batch(x, labels, weight), *model.test_on_batch(x, labels)]
    return [*map(float, logs), *np.concatenate([np.ravel(one) for one in model.get_weights()])]

strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for options in (("sum_over_batch_size", False), ("sum", True), ("mean_with_sample_weight", True)):
    one, several = (outcome(strategy, *options) for strategy in strategies)
    np.testing.assert_allclose(several, one, rtol=1e-5, atol=1e-5, err_msg=str(options))
one, several = (outcome(strategy, "sum_over_batch_size", False, Own) for strategy in strategies)
np.testing.assert_allclose(several, one, rtol=1e-5, atol=1e-5)

with strategies[1].scope():
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    model = ks.layers.LearnedScale(encoder)
    model.compile("sgd", ks.losses.NTXentLoss())
try:
    model.train_on_batch(x, labels)
    raise SystemExit("not refused")
except ValueError as error:
    assert "LearnedScale does not work with several replicas" in str(error), error
print("null")
"""


@pytest.mark.deep
@pytest.mark.tensorflow
@pytest.mark.skipif(IS_OLD, reason="Keras below 3.8 adds up the gradients of replicas")
def test_steps_on_a_batch_that_each_replica_has_whole_are_those_of_one_device():
    """Keras's `train_on_batch` and `test_on_batch`, also after `fit`; a method of the user may divide the batch."""
    assert fresh(ON_BATCH) is None


class Context:
    """Two replicas, of which the `number`-th holds some of the `rows`."""

    num_replicas_in_sync = 2

    def __init__(self, number, parts):
        self.replica_id_in_sync_group, self.parts = number, parts

    scale_of_sum = 1

    def all_gather(self, tensor, axis):
        if tuple(tensor.shape) == (1,):
            return ops.convert_to_tensor(np.array([len(part) for part in self.parts], "int32"))
        return ops.convert_to_tensor(np.concatenate(self.parts))

    def all_reduce_sum(self, tensor):
        """Of `(rows, weights)`; a part holds its rows' weights."""
        return ops.convert_to_tensor(np.array([[len(part), part.sum()] for part in self.parts], "float32").sum(axis=0))


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (8, 0)])
def test_each_replica_keeps_the_values_of_its_own_rows(monkeypatch, rng, sizes):
    values = rng.normal(size=8).astype("float32")
    parts, found = np.split(values, [sizes[0]]), []
    for number, part in enumerate(parts):
        monkeypatch.setattr(_replicas, "replica_context", lambda number=number: Context(number, parts))
        (everywhere,), own = gathered(ops.convert_to_tensor(part))
        np.testing.assert_array_equal(ops.convert_to_numpy(everywhere), values)
        found.append(ops.convert_to_numpy(own(everywhere)))
    assert [len(part) for part in found] == list(sizes)
    np.testing.assert_array_equal(np.concatenate(found), values)


class InThread:
    """One of two replicas, each in a thread, which wait for each other whenever they exchange rows."""

    num_replicas_in_sync = 2

    def __init__(self, number, sent, barrier):
        self.replica_id_in_sync_group, self.sent, self.barrier = number, sent, barrier

    def all_gather(self, tensor, axis):
        self.sent[self.replica_id_in_sync_group] = tensor
        self.barrier.wait()
        of_all = ops.concatenate([self.sent[number] for number in range(2)], axis=axis)
        self.barrier.wait()
        return of_all


@pytest.mark.parametrize("name", exported(EmbeddingLoss))
def test_a_replica_computes_its_own_rows(monkeypatch, rng, name):
    """Of 14 rows it has 9 or 5, also in blocks; only these are compared with all."""
    labels, z = np.arange(14) // 3, rng.normal(size=(14, 5)).astype("float32")
    replica, heights = threading.local(), set()
    for module in (_replicas, losses.base):
        monkeypatch.setattr(module, "replica_context", lambda: getattr(replica, "context", None))

    def values_of(part, *context):
        replica.context = InThread(*context) if context else None
        return ops.convert_to_numpy(loss(labels[part], z[part]))

    in_blocks = [{"block_size": 4}] if issubclass(exported()[name], losses.BatchLoss) else []
    for options in [{}, *in_blocks]:
        loss = exported()[name](**REQUIRED.get(name, {}), reduction=None, **options)
        expected, sent, barrier = values_of(slice(None)), {}, threading.Barrier(2, timeout=60)
        if in_blocks and not options:
            measure = loss.measure
            loss.measure = lambda a, b: heights.add((len(a), len(b))) or measure(a, b)  # noqa: B023
        with ThreadPoolExecutor(2) as pool:
            parts = slice(9), slice(9, None)
            found = [pool.submit(values_of, part, number, sent, barrier) for number, part in enumerate(parts)]
        np.testing.assert_allclose(np.concatenate([one.result() for one in found]), expected, rtol=1e-5, atol=1e-6)
    assert heights == ({(9, 14), (5, 14)} if in_blocks else set())


def slope_of(function, at):
    """The derivative of `function` of a number."""
    if keras.backend.backend() == "torch":
        import torch

        point = torch.tensor(at, requires_grad=True)
        function(point).backward()
        return float(point.grad)
    if keras.backend.backend() == "jax":
        import jax

        return float(jax.grad(function)(at))
    import tensorflow as tf

    point = tf.Variable(at)
    with tf.GradientTape() as tape:
        value = function(point)
    return float(tape.gradient(value, point))


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
@pytest.mark.parametrize("sizes", [(4, 4), (5, 3)])
def test_replicas_with_different_numbers_of_rows_follow_the_loss_of_the_whole_batch(monkeypatch, rng, sizes, reduction):
    """Keras averages values over replicas by their rows, and adds the gradients of 1/2 of each mean, or of each sum."""
    monkeypatch.setattr(_replicas, "refuse_old_keras", lambda: None)
    values, weights = rng.normal(size=8), rng.uniform(0.1, 2.0, size=8).astype("float32")
    divisors = {"sum_over_batch_size": np.ones_like(weights), "mean_with_sample_weight": weights}

    def reduced(rows):
        total = float((values * weights)[rows].sum())
        return total if reduction == "sum" else total / divisors[reduction][rows].sum()

    start, value, slope = 0, 0.0, 0.0
    parts = np.split(divisors.get(reduction, weights), [sizes[0]])
    for number, part in enumerate(np.split(weights, [sizes[0]])):
        monkeypatch.setattr(_replicas, "replica_context", lambda number=number: Context(number, parts))
        rows, start = slice(start, start + len(part)), start + len(part)
        options = reduction, np.zeros((len(part), 3), "float32"), part

        def weighted(loss, options=options):
            return weighted_by_rows(loss, *options)

        own = reduced(rows)
        scale = 2 if reduction == "sum" else 1  # Keras multiplies what it reports by the number of replicas
        value += len(part) / 8 * float(weighted(ops.convert_to_tensor(np.float32(own)))) * scale
        slope += slope_of(weighted, np.float32(own)) * own * scale / 2
    assert value == pytest.approx(reduced(slice(0, 8)), abs=1e-5)
    assert slope == pytest.approx(reduced(slice(0, 8)), abs=1e-5)


def test_with_local_negatives_nothing_is_gathered(monkeypatch, rng):
    labels, z = np.array([0, 0, 1, 1]), rng.normal(size=(4, 3)).astype("float32")
    alone = float(losses.NTXentLoss()(labels, z))
    parts = [np.ones(4, "float32")] * 2
    monkeypatch.setattr(_replicas, "refuse_old_keras", lambda: None)
    monkeypatch.setattr(_replicas, "replica_context", lambda: Context(1, parts))
    assert float(losses.NTXentLoss(local_negatives=True)(labels, z)) == pytest.approx(alone)


def test_names_of_identities_are_refused_where_each_replica_would_number_its_own(monkeypatch):
    monkeypatch.setattr("keras_siamese.losses.base.replica_context", lambda: Context(0, []))
    with pytest.raises(ValueError, match="`y_true` must hold whole numbers where several replicas share a batch"):
        losses.NTXentLoss()(np.array(["ada", "bo"]), np.eye(2, dtype="float32"))


class Devices(keras.Model):
    """A model whose `fit` asks a sequence for its length, as Keras does."""

    def ask(self, sequence):
        return sequence.num_batches


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda x, y: data.PairSequence(x, y, batch_size=6), "`batch_size` must give batches that 4 devices divide"),
        (lambda x, y: data.PairSequence(x, y, batch_size=8), "`pairs_per_epoch` must be a multiple of 4, such as 8 or"),
        (lambda x, y: data.TripletSequence(x, y, batch_size=8), "`triplets_per_epoch` must be a multiple of 4"),
        (lambda x, y: data.ExplicitPairs(x, [0, 1], [1, 2], [1, 0]), "`batch_size` must give batches that 4"),
        (
            lambda x, y: data.BalancedBatchSequence(x, y, classes_per_batch=3, samples_per_class=2),
            "`classes_per_batch` × `samples_per_class` must give batches that 4 devices divide; got 6 rows",
        ),
    ],
)
def test_a_sequence_says_at_once_which_number_the_devices_do_not_divide(monkeypatch, make, told):
    sequence = make(np.arange(10.0), np.arange(10) // 2)
    assert Devices().ask(sequence) == len(sequence)
    monkeypatch.setattr("keras_siamese.data.sequence.device_count", lambda model: 4 * isinstance(model, Devices))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=told):
        Devices().ask(sequence)


def test_a_sequence_whose_batches_the_devices_divide_is_taken(monkeypatch):
    monkeypatch.setattr("keras_siamese.data.sequence.device_count", lambda model: 4)
    sequence = data.PairSequence(np.arange(12.0), np.arange(12) // 2, batch_size=8)
    assert sequence.num_batches == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_each_of_several_processes_gives_keras_its_rows_of_a_batch(monkeypatch, workers):
    labels = np.arange(24) // 2
    sequence = data.PairSequence(np.arange(24.0), labels, batch_size=8, frozen=True, workers=workers)
    whole = [sequence.batch(0, index) for index in range(len(sequence))]
    parts = []
    for first in (0, 1, 3):  # of four devices: one, two and one
        share = first, min(4, first + 1 + (first == 1)), 4
        monkeypatch.setattr("keras_siamese.data.sequence.share_of_process", lambda share=share: share)
        assert sequence.num_batches == len(sequence)
        with ThreadPoolExecutor() as pool:
            parts.append(list(pool.map(pickle.loads(pickle.dumps(sequence)).__getitem__, range(len(sequence)))))
        # Whoever reads the sequence for the diagnosis gets all rows in each process.
        for read, batch in zip(batches_of(sequence), whole, strict=True):
            np.testing.assert_array_equal(read[0][0], batch[0][0])
    assert [len(batches[0][1]) for batches in parts] == [2, 4, 2]
    with pytest.raises(ValueError, match="`use_multiprocessing` must be False where several processes of JAX"):
        assert data.PairSequence(np.arange(24.0), labels, workers=2, use_multiprocessing=True).num_batches
    joined = keras.tree.map_structure(lambda *rows: np.concatenate(rows), *parts)
    keras.tree.map_structure(np.testing.assert_array_equal, joined, whole)
    monkeypatch.undo()
    assert sequence.num_batches == len(sequence) and len(sequence[0][1]) == 8, "in one process, all rows"


def test_processes_need_a_keras_that_knows_its_mesh(monkeypatch):
    mesh = SimpleNamespace(shape=(2,), axis_names=("batch",))
    found = SimpleNamespace(device_mesh=mesh, batch_dim_name="batch")
    monkeypatch.setattr(_replicas, "distribution", lambda: found)
    for count in (1, 2):
        monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(process_count=lambda count=count: count))
        if count == 1:
            assert _replicas.share_of_process() is None
            continue
        with pytest.raises(ValueError, match="Several processes of JAX need a newer Keras"):
            _replicas.share_of_process()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("share_of_process", (0, 1, 2), "PartialFC works in one process; these are several"),
        pytest.param("device_count", 2, "PartialFC does not work with several replicas", marks=pytest.mark.tensorflow),
    ],
)
def test_a_state_in_each_part_is_refused(monkeypatch, name, value, message):
    monkeypatch.setattr(_replicas, name, lambda *model: value)
    batches = data.BalancedBatchSequence(np.ones((12, 3)), np.arange(12) // 2, classes_per_batch=2, samples_per_class=2)
    classes = PartialFC(batches, num_classes=6, sample=4)
    model = keras.Sequential([keras.Input((3,)), layers.ProxyLogits(4)])
    model.compile("sgd", losses.ArcFaceLoss())
    with pytest.raises(ValueError, match=message):
        model.fit(classes.batches(), steps_per_epoch=1, shuffle=False, verbose=0, callbacks=[classes])


def test_without_replicas_nothing_is_gathered():
    tensor = ops.ones((3,))
    (same,), own = gathered(tensor)
    assert same is tensor and own(tensor) is tensor


def test_a_similarity_matrix_of_one_replica_is_refused(monkeypatch):
    refuse_replicas(losses.NpairsLoss())
    monkeypatch.setattr(_replicas, "replica_context", lambda: Context(0, []))
    with pytest.raises(ValueError, match="NpairsLoss takes a similarity matrix, which on each of 2 replicas lacks"):
        losses.NpairsLoss()(np.array([0, 1]), np.eye(2, dtype="float32"))


@pytest.mark.tensorflow
def test_an_old_keras_which_adds_up_gradients_is_refused(monkeypatch):
    monkeypatch.setattr(_replicas, "replica_context", lambda: Context(0, [np.ones(4, "float32")] * 2))
    monkeypatch.setattr(keras, "__version__", "3.7.0")
    with pytest.raises(ValueError, match="need Keras 3.8 or newer; this is 3.7.0"):
        losses.ContrastiveLoss()(np.ones(4, "float32"), np.ones((4, 1), "float32"))


@pytest.mark.parametrize("call", ["fit", "evaluate"])
def test_training_by_workers_which_keras_does_not_support_is_refused_by_name(monkeypatch, call):
    model = layers.SiameseWrapper(keras.layers.Dense(2))
    model.compile("sgd", losses.ContrastiveLoss())
    encoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    encoder.compile("sgd", losses.NTXentLoss())
    x = np.ones((8, 3), "float32")
    batches = data.BalancedBatchSequence(x, np.arange(8) // 2, classes_per_batch=2, samples_per_class=2)
    monkeypatch.setattr(_replicas, "has_workers", lambda model: True)
    for name, train in ((f"`{call}`", getattr(model, call)), (f"`{call}`", getattr(encoder, call)), ("ks.fit", None)):
        with pytest.raises(ValueError, match=f"{name} does not work with tf.distribute.MultiWorkerMirroredStrategy"):
            fit(model, (x, x), x[:, 0]) if train is None else train(batches, verbose=0)


MAPPED = """
import jax, numpy as np
from jax.sharding import PartitionSpec
from keras_siamese import losses

z, identities = np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), np.arange(8) % 2

def values(**options):
    loss = losses.NTXentLoss(reduction=None, **options)
    mesh, rows = jax.make_mesh((2,), ("devices",)), PartitionSpec("devices")
    mapped = jax.shard_map(lambda *rows: loss(*rows), mesh=mesh, in_specs=(rows, rows), out_specs=rows)
    return jax.jit(mapped)(*jax.device_put((identities, z), jax.sharding.NamedSharding(mesh, rows)))

halves = [losses.NTXentLoss(reduction=None)(identities[part], z[part]) for part in (slice(4), slice(4, 8))]
np.testing.assert_allclose(values(local_negatives=True), np.concatenate(halves), rtol=1e-5)
for call in (values, lambda: jax.pmap(losses.NpairsLoss())(identities.reshape(2, 4), z.reshape(2, 4, 4))):
    try:
        call()
        raise SystemExit("not refused")
    except ValueError as error:
        assert "sees those of one device only" in str(error), error
print("null")
"""


@pytest.mark.deep
@pytest.mark.jax
def test_inside_of_a_mapped_function_rows_of_one_device_are_refused():
    """On two devices, so in a process of its own."""
    assert fresh(MAPPED, **virtual_devices(2)) is None


SHARDED = """
import keras, numpy as np, keras_siamese as ks
from keras import distribution

labels = np.repeat(np.arange(20), 4)
x = np.random.default_rng(0).normal(size=(80, 8)).astype("float32") + labels[:, None] / 10

def model_of(count):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    model = keras.Sequential([encoder, ks.layers.ProxyLogits(count)])
    model.compile("adam", ks.losses.ArcFaceLoss(scale=8.0))
    return model

def whole():
    model = model_of(20)
    losses = model.fit(x, labels, batch_size=16, epochs=2, shuffle=False, verbose=0).history["loss"]
    return model, [*losses, *np.ravel(model.get_weights()[-1])]

def sampled():
    batches = ks.data.BalancedBatchSequence(x, labels, classes_per_batch=4, samples_per_class=2, seed=0)
    classes, model = ks.callbacks.PartialFC(batches, num_classes=20, sample=10), model_of(10)
    given = {"steps_per_epoch": len(batches), "epochs": 2, "shuffle": False, "verbose": 0}
    losses = model.fit(classes.batches(), callbacks=[classes], **given).history["loss"]
    return model, [*losses, *np.ravel(classes.proxies)]

alone = [train()[1] for train in (whole, sampled)]
layout = distribution.LayoutMap(distribution.DeviceMesh((2, 2), ("batch", "model")))
layout[".*proxies"] = ("model", None)
with distribution.ModelParallel(layout_map=layout).scope():
    for train, expected in zip((whole, sampled), alone):
        model, found = train()
        shards = model.layers[-1].proxies.value.addressable_shards
        assert {shard.data.shape for shard in shards} == {(model.layers[-1].num_classes // 2, 4)}
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
print("null")
"""


@pytest.mark.deep
@pytest.mark.jax
def test_proxies_that_are_divided_among_devices_are_trained_the_same():
    """By `ModelParallel`: the layer of all classes, and the sample of `PartialFC`."""
    assert fresh(SHARDED, **virtual_devices(4)) is None


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are TensorFlow's")
def test_an_error_among_the_replicas_is_not_taken_for_a_graph_of_its_own(monkeypatch):
    from tensorflow import distribute

    def failing(message):
        def merge_call(function):
            raise RuntimeError(message)

        return lambda: SimpleNamespace(num_replicas_in_sync=2, merge_call=merge_call)

    monkeypatch.setattr(distribute, "get_replica_context", failing("`merge_call` called while defining a new graph"))
    assert _replicas.copies_of_batch() == 1
    monkeypatch.setattr(distribute, "get_replica_context", failing("a device was lost"))
    with pytest.raises(RuntimeError, match="a device was lost"):
        _replicas.copies_of_batch()
