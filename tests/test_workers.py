"""Two real processes that work together, of TensorFlow and of JAX: one device's results, or a named error."""

import json
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from tests.support.fresh_python import fresh
from tests.support.ports import free_ports

WORKER = """
import json, tempfile
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else is computed
import keras, numpy as np, keras_siamese as ks
from keras_siamese._replicas import train_on_batch

rng = np.random.default_rng(0)
labels = rng.permutation(np.repeat(np.arange(9), 3))
x = (rng.normal(size=(9, 6))[labels] + rng.normal(size=(27, 6))).astype("float32")
first = rng.normal(size=(6, 4)).astype("float32")

def trained(strategy):
    '''Two epochs of 16 and 11 rows in a loop of one's own, then a verifier: all numbers.'''
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False)])
        encoder.compile(keras.optimizers.SGD(0.05), ks.losses.NTXentLoss())
    encoder.set_weights([first])
    monitor = ks.callbacks.VerificationMonitor((x, labels), far=0.1)
    monitor.set_model(encoder)
    monitor.on_train_begin()
    found = []

    @tf.function(reduce_retracing=True)
    def step(batch):
        strategy.run(encoder.train_step, args=(batch,))

    for epoch in range(2):
        monitor.on_epoch_begin(epoch)
        for rows in (np.arange(16), np.arange(16, 27)):
            def own(context):
                part = np.array_split(rows, context.num_replicas_in_sync)[context.replica_id_in_sync_group]
                return x[part], labels[part]
            step(strategy.experimental_distribute_values_from_function(own))
        logs = {}
        monitor.on_epoch_end(epoch, logs)
        found += [logs[key] for key in monitor.keys]
    with strategy.scope():
        verifier = ks.Verifier.calibrate(encoder, x, labels, criterion="eer")
        with tempfile.TemporaryDirectory() as folder:
            verifier.save(f"{folder}/verifier.keras")
            loaded = ks.Verifier.load(f"{folder}/verifier.keras")
        for one in (verifier, loaded):
            found += [column.astype(float).tolist() for column in one.decide(x[:5], x[5:10]).values()]
        for _ in range(2):  # as the diagnosis does
            encoder.reset_metrics()
            found.append(train_on_batch(encoder, x, labels)["loss"])
    return [np.ravel(part).tolist() for part in (*found, *encoder.get_weights())]

def refused(call, *arguments, **options):
    try:
        call(*arguments, **options, verbose=0)
    except ValueError as error:
        return str(error)

many, one = trained(strategy), trained(tf.distribute.get_strategy())
with strategy.scope():
    siamese = ks.SiameseWrapper(keras.layers.Dense(4))
    siamese.compile("sgd", ks.losses.ContrastiveLoss())
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    encoder.compile("sgd", ks.losses.NTXentLoss())
    pairs = (x[:8], x[8:16]), (labels[:8] == labels[8:16]).astype("float32")
    batches = ks.data.BalancedBatchSequence(x, labels, classes_per_batch=4, samples_per_class=2)
    refusals = {
        "`fit`": refused(siamese.fit, *pairs),
        "`evaluate`": refused(siamese.evaluate, *pairs),
        "ks.fit": refused(ks.fit, siamese, *pairs, validation_data=pairs),
        "`fit` ": refused(encoder.fit, batches),
    }
print(json.dumps([many, one, refusals]))
"""


@pytest.mark.deep
@pytest.mark.tensorflow
@pytest.mark.skipif(
    tuple(map(int, keras.__version__.split(".")[:2])) < (3, 8), reason="Keras below 3.8 adds up the gradients"
)
def test_two_workers_give_what_one_device_gives_or_a_named_error():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]

    def worker(index):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        return fresh(WORKER, TF_CONFIG=json.dumps(config), OMP_NUM_THREADS="1")

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(worker, range(2)))
    for many, one, refusals in results:
        assert len(many) == len(one) == 2 * 6 + 2 * 3 + 2 + 1
        for found, expected in zip(many, one, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        for what, error in refusals.items():
            told = f"{what.strip()} does not work with tf.distribute.MultiWorkerMirroredStrategy"
            assert error is not None and error.startswith(told), (what, error)
    assert results[0][0] == results[1][0], "both workers find the same"


PROCESS = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
import keras, numpy as np, keras_siamese as ks

keras.distribution.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
labels = np.random.default_rng(0).permutation(np.arange(144) % 12)
means, noise = (np.random.default_rng(seed).normal(size=(rows, 6)) for seed, rows in ((1, 12), (2, 144)))
x = (means[labels] + noise).astype("float32")

def model_of():
    keras.utils.set_random_seed(1)
    model = ks.SiameseWrapper(keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False)]))
    model.build([(None, 6), (None, 6)])
    model.compile(keras.optimizers.SGD(1e-5), ks.losses.ContrastiveLoss())  # far too slow
    return model

def found():
    train, valid = ks.data.PairSequence(x[:72], labels[:72], batch_size=16), (x[72:], labels[72:])
    model = model_of()
    before = [np.array(weight.value) for weight in model.weights]
    diagnosis = ks.diagnose(model, train=train, validation=valid, budget_epochs=4)
    for weight, value in zip(model.weights, before):
        np.testing.assert_array_equal(weight.value, value)
    tests = [one.confirmation for one in diagnosis.findings if one.confirmation is not None]
    repaired = ks.repair(model_of(), train, valid, budget=9, epochs=3, progress=False)
    words = [[one.cause for one in diagnosis.findings], [one.verdict for one in tests], repaired.why]
    words.append([[one.cause, one.kept] for one in repaired.attempts])
    numbers = [*(one.before for one in tests), *(one.after for one in tests)]
    return words, [*numbers, *(one.eer for one in repaired.attempts)]

one = found()
with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
    print("\\n" + json.dumps([one, found()]))
"""


@pytest.mark.deep
@pytest.mark.jax
def test_two_processes_confirm_and_repair_as_one_does():
    (port,) = free_ports(1)
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda rank: fresh(PROCESS, f"127.0.0.1:{port}", rank), range(2)))
    for (words, numbers), (found, others) in results:
        assert found == words and len(words[1]) and len(words[3]) > 1, "a cause was tested, and a repair was tried"
        np.testing.assert_allclose(others, numbers, rtol=1e-5, atol=1e-5)
    assert results[0] == results[1]
