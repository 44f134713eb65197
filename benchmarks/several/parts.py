"""Data, models and training that the features share, the same in each process.

Contract: nothing is imported at the top that starts a backend, because the worker first sets its devices.

    model = seeded(encoder_of())
    x, labels = data_of(70)
"""

import functools


def data_of(count, seed=0):
    """`count` items of 12 identities: `(x, labels)`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 12)
    means = np.random.default_rng(9).normal(size=(12, 6))
    return (means[labels] + rng.normal(size=(count, 6))).astype("float32"), labels


def seed_weights(weights, seed=1):
    """Gives `weights` the same random values in each process."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for weight in weights:
        weight.assign(rng.normal(size=weight.shape).astype("float32") / 2)


def seeded(model):
    """`model`, with the same random weights in each process."""
    seed_weights(model.trainable_weights)
    return model


def encoder_of(width=4):
    import keras

    dense = keras.layers.Dense(width, use_bias=False, name=f"dense_{next(NUMBERS)}")
    return keras.Sequential([keras.Input((6,)), dense, keras.layers.UnitNormalization()])


NUMBERS = iter(range(10**6))


def siamese_of(**options):
    import keras_siamese as ks

    model = ks.SiameseWrapper(encoder_of(), **options)
    model.build([(None, 6), (None, 6)])
    return seeded(model)


def array(tensor):
    import keras

    return keras.ops.convert_to_numpy(tensor).ravel().tolist()


def trained(model, sequence, **options):
    """Two epochs: the history and the weights."""
    history = model.fit(sequence, epochs=2, shuffle=False, verbose=0, **options).history
    return {**history, "weights": [array(weight) for weight in model.trainable_weights]}


def compiled(model, loss, metrics=None, rate=0.05):
    import keras

    model.compile(keras.optimizers.SGD(rate), loss, metrics=metrics)
    return model


def fitted(model, losses, x, y):
    """The history of two epochs in batches of 16, as the strategy of this process trains."""
    import keras

    from keras_siamese._replicas import has_workers

    options = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
    if keras.backend.backend() == "torch" and is_several():
        return loop_with_ddp(model, losses, x, y)
    if has_workers(model):
        return loop_with_strategy(model, x, y)
    x, y, options["batch_size"] = own_part(16, x, y)
    return model.fit(x, y, **options).history


def own_part(batch_size, *data):
    """`(*data, batch_size)`; in one of several processes of JAX, its rows of each batch, and their number."""
    import keras

    if keras.backend.backend() != "jax":
        return *data, batch_size
    import jax
    import numpy as np

    count, processes = len(keras.tree.flatten(data)[0]), jax.process_count()
    if (count % batch_size or batch_size) % processes:
        why = "Received data size doesn't match expected size"
        raise RuntimeError(f"JAX would end both processes if one gives more rows than the other: {why}")
    batches = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    rows = np.concatenate([np.split(batch, processes)[jax.process_index()] for batch in batches])
    return *(keras.tree.map_structure(lambda array: array[rows], one) for one in data), batch_size // processes


def is_several():
    from torch import distributed

    return distributed.is_initialized()


def loop_with_ddp(model, losses, x, y, batch_size=16):
    """The same by a loop with PyTorch's `DistributedDataParallel`, in which each process takes its share of rows."""
    import numpy as np
    import torch
    from torch import distributed

    names, rank = getattr(model, "output_names", ["output"]), distributed.get_rank()
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    history = {f"{name}_loss": [] for name in names}
    for _ in range(2):
        sums = torch.zeros(len(names) + 1)
        for start in range(0, len(x[0]), batch_size):
            rows = np.arange(start, min(start + batch_size, len(x[0])))
            own = np.array_split(rows, distributed.get_world_size())[rank]
            inputs = [torch.as_tensor(one[own]) for one in x]
            outputs = wrapped(*inputs) if len(x) == 1 else wrapped(inputs)
            outputs = [outputs] if len(x) == 1 else outputs
            values = [loss(one[own], output) for loss, one, output in zip(losses, y, outputs, strict=True)]
            optimizer.zero_grad()
            sum(values).backward()
            optimizer.step()
            sums += torch.stack([*(value.detach() for value in values), torch.ones(())]) * len(own)
        distributed.all_reduce(sums)
        for name, value in zip(names, sums / sums[-1], strict=False):
            history[f"{name}_loss"].append(float(value))
    return history


def loop_with_strategy(model, x, y, batch_size=16):
    """The same by a loop with TensorFlow's strategy, in which each replica takes its share of rows."""
    import keras
    import numpy as np

    strategy, history, step = model.distribute_strategy, {}, strategy_step(model)
    for _ in range(2):
        model.reset_metrics()
        for start in range(0, len(x[0]), batch_size):
            rows = np.arange(start, min(start + batch_size, len(x[0])))

            def own(context, rows=rows):
                part = np.array_split(rows, context.num_replicas_in_sync)[context.replica_id_in_sync_group]
                return keras.tree.map_structure(lambda one: one[part], (tuple(x), tuple(y)))

            step(strategy.experimental_distribute_values_from_function(own))
        for name, value in model.get_metrics_result().items():
            history.setdefault(name, []).append(float(value))
    return history


@functools.cache
def strategy_step(model):
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def step(batch):
        model.distribute_strategy.run(model.train_step, args=(batch,))

    return step
