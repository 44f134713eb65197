"""The global batch on several devices, for losses and metrics that compare rows with each other, and for single steps.

Under a TensorFlow strategy, and with PyTorch's `DistributedDataParallel`, each replica calls the loss on its own part
of the batch. A loss of single rows does not mind, but one that compares rows would miss all pairs of rows on different
replicas. So it gathers the rows of all replicas, and computes the values of its own rows, compared with all. Gradients
flow back to the replicas that the rows come from. So values, gradients and weights are those of the whole batch on one
device. Each replica receives O(batch · dim) numbers. On JAX a distributed batch is one array already, so nothing is
gathered.

    (labels, embeddings), own = gathered(labels, embeddings)
    return own(values_of(labels, embeddings))        # of `(batch,)` values, those of this replica
"""

import contextlib
import functools
import inspect
import sys

import keras
import numpy as np
from keras import ops, tree

ON_BATCH = ("train_on_batch", "test_on_batch")
OF_KERAS = ("fit", "evaluate", *ON_BATCH)


class Share:
    """Which rows of a batch are wanted: all of them by default, or those of a replica.

    A call takes from values of all rows `(batch, …)` those of the share `(rows, …)`.

    Attributes:
        first, rows: the first row and the number of rows; None means all.
    """

    def __init__(self, first=0, rows=None, context=None):
        self.first, self.rows, self._context = first, rows, context

    def __call__(self, values):
        return values if self.rows is None else values[self.first : self.first + self.rows]

    def of_all(self, tensor):
        """From a `tensor` `(rows, …)` of the share's rows, that of the rows of all replicas."""
        return tensor if self._context is None else rows_of_all(self._context, tensor)

    def columns_of_all(self, columns):
        """`of_all` of several columns `(rows,)`, which are sent together."""
        if self._context is None:
            return columns
        dtypes = [column.dtype for column in columns]
        together = self.of_all(ops.stack([ops.cast(column, dtypes[0]) for column in columns], axis=1))
        return [ops.cast(together[:, number], dtype) for number, dtype in enumerate(dtypes)]


def gathered(*tensors):
    """`(tensors, own)`: the `tensors` `(rows, …)` with the rows of all replicas, and the `Share` of this replica."""
    context = replica_context()
    if context is None:
        refuse_mapped()
        return tensors, Share()
    rows = ops.shape(tensors[0])[0]
    counts = context.all_gather(ops.reshape(ops.cast(rows, "int32"), (1,)), axis=0)
    start = ops.sum(counts[: context.replica_id_in_sync_group])
    return [rows_of_all(context, ops.convert_to_tensor(tensor)) for tensor in tensors], Share(start, rows, context)


def rows_of_all(context, tensor):
    """The rows `(batch, …)` of all replicas. Gathering takes no masks, and forgets the known sizes of a `tensor`."""
    is_mask = keras.backend.standardize_dtype(tensor.dtype) == "bool"
    rows = context.all_gather(ops.cast(tensor, "int32") if is_mask else tensor, axis=0)
    rows = ops.reshape(rows, (-1, *tensor.shape[1:]))
    return ops.cast(rows, "bool") if is_mask else rows


def of_each_device(function, *tensors):
    """`function(*tensors)` of the rows `(rows, …)` of each device by themselves: `(values, totals)`, values `(rows,)`
    and a list of sums over the rows. A replica has its own rows anyway; on JAX the batch is cut into those of each.
    """
    found = distribution()
    parts = 1 if found is None else replicas_of(found)
    if parts == 1:
        return function(*tensors)
    cut = [ops.reshape(tensor, (parts, -1, *tensor.shape[1:])) for tensor in tensors]
    values, totals = ops.vectorized_map(lambda rows: function(*rows), cut)
    return ops.reshape(values, (-1,)), [ops.sum(total) for total in totals]


def weighted_by_rows(loss, reduction, y_pred, sample_weight, mask=None):
    """A replica's reduced `loss`, so that the mean over replicas is the mean over all rows of the batch.

    Keras takes the mean over the rows of each replica, and then over replicas, which is another number if these have
    different numbers of rows (or sums of weights). Only the gradient is scaled, because Keras weights the values that
    it reports by rows. So `fit` reports and follows the loss of the whole batch.

    Args:
        loss: what Keras's `Loss.__call__` returns, a scalar.
        reduction: of the loss, as in `keras.losses.Loss`.
        y_pred: `(rows, …)`, of this replica.
        sample_weight: `(rows,)`, `(rows, 1)` or None.
        mask: `(rows,)`, Keras's mask of `y_pred`, or None.
    """
    context = replica_context()
    if reduction in (None, "none"):
        return loss
    if context is None:  # Keras adds up the gradients of replicas, and so a sum once for each copy of the batch
        return loss / copies if reduction == "sum" and (copies := copies_of_batch()) > 1 else loss
    refuse_old_keras()
    rows = weights = ops.ones((ops.shape(y_pred)[0],), dtype=loss.dtype)
    if mask is not None:
        weights = weights * ops.cast(mask, loss.dtype)
    if sample_weight is not None and reduction == "mean_with_sample_weight":
        weights = weights * ops.reshape(ops.cast(sample_weight, loss.dtype), (-1,))
    own = ops.stack([ops.sum(rows), ops.sum(weights)])
    mean = context.all_reduce_sum(own) / context.num_replicas_in_sync
    of_rows, of_weights = ops.unstack(ops.divide_no_nan(own, mean))
    slope = ops.ones_like(of_rows) * context.scale_of_sum if reduction == "sum" else of_weights
    value = ops.divide_no_nan(slope, of_rows)
    return slope * loss + ops.stop_gradient((value - slope) * loss)


def refuse_old_keras():
    """Raises if this Keras adds up the gradients of the replicas of a TensorFlow strategy instead of averaging them."""
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    if keras.backend.backend() == "tensorflow" and version < (3, 8):
        raise ValueError(
            f"Several replicas of a TensorFlow strategy need Keras 3.8 or newer; this is {keras.__version__}"
        )


def refuse_mapped():
    """Raises inside of `jax.shard_map` and `jax.pmap`, where a function is given the rows of one device."""
    if keras.backend.backend() != "jax":
        return
    import jax

    mesh = getattr(jax.sharding, "get_abstract_mesh", lambda: None)()  # older versions of JAX do not tell
    axes = getattr(mesh, "manual_axes", ())
    if any(mesh.shape[axis] > 1 for axis in axes):
        raise ValueError(
            "Inside of jax.shard_map and jax.pmap, a loss that compares rows sees those of one device only. Call it "
            "outside on the whole batch, which jax.jit divides among the devices, too. With local_negatives=True, a "
            "loss on embeddings compares the rows of each device alone"
        )


def refuse_replicas(loss):
    """Raises if there are several replicas, of which each has a similarity matrix of its own rows."""
    context = replica_context()
    refuse_mapped()
    if context is not None:
        raise ValueError(
            f"{type(loss).__name__} takes a similarity matrix, which on each of {context.num_replicas_in_sync} "
            "replicas lacks the rows of the others. Use a loss on embeddings, such as ks.losses.NTXentLoss"
        )


class MirroredReplica:
    """A replica of a TensorFlow strategy."""

    scale_of_sum = 1  # Keras adds the gradients of replicas, and divides a mean beforehand

    def __init__(self, context):
        self.context = context
        self.num_replicas_in_sync = context.num_replicas_in_sync
        self.replica_id_in_sync_group = context.replica_id_in_sync_group

    def all_gather(self, tensor, axis):
        return self.context.all_gather(tensor, axis)

    def all_reduce_sum(self, tensor):
        return self.context.all_reduce("SUM", tensor)


class TorchReplica:
    """A process of `torch.distributed`."""

    def __init__(self, distributed):
        self.distributed = distributed
        self.num_replicas_in_sync = self.scale_of_sum = distributed.get_world_size()  # it averages gradients
        self.replica_id_in_sync_group = distributed.get_rank()

    def all_gather(self, tensor, axis):
        """The rows of all processes. Those with fewer rows are padded, because gathering needs equal shapes."""
        import torch

        counts = [torch.zeros(1, dtype=torch.int64, device=tensor.device) for _ in range(self.num_replicas_in_sync)]
        self.distributed.all_gather(counts, torch.tensor([len(tensor)], device=tensor.device))
        counts = [int(count) for count in counts]
        if not min(counts):
            raise ValueError(f"Each process must have at least one row of a batch; got {counts} rows")
        missing = max(counts) - len(tensor)
        padded = torch.cat([tensor, tensor.new_zeros((missing, *tensor.shape[1:]))]).contiguous()
        parts = gather_with_gradient().apply(padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def all_reduce_sum(self, tensor):
        tensor = tensor.detach().clone()
        self.distributed.all_reduce(tensor)
        return tensor


@functools.cache
def gather_with_gradient():
    """A function of PyTorch from a tensor `(rows, …)` to those of all processes, `(processes, rows, …)`."""
    import torch
    from torch import distributed

    class Gather(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
            distributed.all_gather(parts, tensor)
            return torch.stack(parts)

        @staticmethod
        def backward(ctx, slopes):
            slopes = slopes.clone().contiguous()
            distributed.all_reduce(slopes)
            return slopes[distributed.get_rank()]

    return Gather


def replica_context():
    """The replica in which this code runs, or None if there is only one, or if a batch is one array, as on JAX."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        from tensorflow import distribute

        context = distribute.get_replica_context()
        is_alone = context is None or context.num_replicas_in_sync == 1 or copies_of_batch() > 1
        return None if is_alone else MirroredReplica(context)
    if backend == "torch":
        from torch import distributed

        several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        return TorchReplica(distributed) if several and trains_together() else None
    return None


def is_replicated():
    """Whether this code runs in one of several replicas, with its part of a batch or with the whole batch."""
    return replica_context() is not None or copies_of_batch() > 1


def copies_of_batch():
    """How many replicas of a TensorFlow strategy have the whole batch each, as in Keras's `train_on_batch`; else 1.

    Each replica then compares all rows of the batch, so it gathers nothing and has the gradient of one device.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    from tensorflow import distribute

    context = distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 1
    try:  # a replica has a thread of its own, and only the one that started them knows who called
        method = context.merge_call(lambda strategy: method_of_keras(ON_BATCH, of_keras=True))
    except RuntimeError as error:  # in a graph of its own, to which the replicas cannot come back
        if "merge_call" not in str(error):
            raise
        return 1
    if method is None:
        return 1
    refuse_workers(f"`{method}`")
    return context.num_replicas_in_sync


def trains_together():
    """Whether this process of `torch.distributed` computes a loss whose gradients it shares with the others.

    Keras's own training and evaluation on PyTorch share nothing, so there each process has batches of its own. The
    same holds for a loss without gradients, which often only one process computes.
    """
    import torch

    return method_of_keras() is None and torch.is_grad_enabled()


def method_of_keras(names=OF_KERAS, of_keras=False):
    """The name of the method of a Keras model, one of `names`, that is running, or None; perhaps only Keras's own."""
    frame = inspect.currentframe()
    while frame is not None:
        is_of_keras = not of_keras or frame.f_globals.get("__name__", "").startswith("keras.")
        if is_of_keras and frame.f_code.co_name in names and isinstance(frame.f_locals.get("self"), keras.Model):
            return frame.f_code.co_name
        frame = frame.f_back
    return None


def distribution():
    """Keras's distribution of batches over devices, or None. Only JAX has one."""
    if keras.backend.backend() != "jax" or not hasattr(keras, "distribution"):
        return None
    return keras.distribution.distribution()


def device_count(model=None):
    """Among how many devices `fit` divides each batch: of the `model`, or of the strategy that is in force."""
    if keras.backend.backend() == "jax":
        found = distribution()
        return 1 if found is None else replicas_of(found)
    strategy = strategy_of(model)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def strategy_of(model=None):
    """The TensorFlow strategy of the `model`, or the one that is in force; None on other backends."""
    if keras.backend.backend() != "tensorflow" or "tensorflow" not in sys.modules:
        return None
    from tensorflow import distribute

    return getattr(model, "distribute_strategy", None) or distribute.get_strategy()


def has_workers(model=None):
    """Whether the strategy is a `MultiWorkerMirroredStrategy` of a cluster, of which this process is one worker."""
    strategy = strategy_of(model)
    if strategy is None:
        return False
    from tensorflow import distribute

    is_of_workers = isinstance(strategy, distribute.MultiWorkerMirroredStrategy)
    return is_of_workers and bool(strategy.cluster_resolver.cluster_spec())


def refuse_workers(what, model=None):
    """Raises under a `MultiWorkerMirroredStrategy`, where Keras's own training fails with errors of TensorFlow."""
    if has_workers(model):
        raise ValueError(
            f"{what} does not work with tf.distribute.MultiWorkerMirroredStrategy, because Keras 3 does not train or "
            "evaluate with it. Use tf.distribute.MirroredStrategy on one machine, several processes of JAX, or a loop "
            "of your own, see docs/guides/devices.md"
        )


def share_of_process():
    """`(first, end, parts)`: of the `parts` of a batch, one a device, this process gives those from `first` to `end`.

    On JAX with several processes, Keras makes one batch of what each process gives. None if this process gives it all.
    """
    found = distribution()
    if found is None:
        return None
    import jax

    parts = replicas_of(found)
    if jax.process_count() == 1 or parts == 1:
        return None
    if not hasattr(found.device_mesh, "backend_mesh"):
        raise ValueError(f"Several processes of JAX need a newer Keras, such as 3.15; this is {keras.__version__}")
    rows = jax.sharding.PartitionSpec(found.batch_dim_name)
    sharding = jax.sharding.NamedSharding(found.device_mesh.backend_mesh, rows)
    own = [part[0].indices(parts) for part in sharding.addressable_devices_indices_map((parts,)).values()]
    return min(first for first, _, _ in own), max(end for _, end, _ in own), parts


def rows_of_share(share, batch):
    """Of each array `(rows, …)` in a nested `batch`, the rows that belong to a share, see `share_of_process`."""
    first, end, parts = share
    return tree.map_structure(lambda rows: rows[len(rows) * first // parts : len(rows) * end // parts], batch)


def refuse_parts(what, model):
    """Raises if several processes of JAX, or several replicas of a TensorFlow strategy, train `model` with `what`.

    Each process would have a state of its own. Under a strategy, Keras loses some batches of a generator.
    """
    if share_of_process() is not None:
        raise ValueError(f"{what} works in one process; these are several, of which each would have a state of its own")
    if keras.backend.backend() == "tensorflow" and (count := device_count(model)) > 1:
        raise ValueError(f"{what} does not work with several replicas of a TensorFlow strategy; these are {count}")


def replicas_of(found):
    """The number of parts into which a Keras distribution divides each batch."""
    mesh, name = found.device_mesh, found.batch_dim_name
    return int(mesh.shape[list(mesh.axis_names).index(name)]) if name in mesh.axis_names else 1


@contextlib.contextmanager
def undistributed():
    """On JAX, batches in this block are not divided among devices: each computes the whole batch, of any size."""
    found = distribution()
    if found is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(found)


def train_on_batch(model, *data):
    """One training step of `model` on `data`, `x, y` or `x, y, sample_weight`, on all its devices: logs by name.

    Keras's own `train_on_batch` gives each replica of a TensorFlow strategy the whole batch, so that a loss that
    compares rows would find each of them several times, and on JAX it needs a batch that the devices divide. It also
    gives `train_step` a sample weight of None, which `fit` does not: a step with `x, y = data` would raise an error.
    """
    if device_count(model) == 1 or keras.backend.backend() != "tensorflow":
        with undistributed(), fed_as_by_fit(model):
            return model.train_on_batch(*data, return_dict=True)
    rows = tree.map_structure(np.asarray, tuple(data) if data[-1] is not None else tuple(data[:-1]))

    def part_of(context):
        count, number = context.num_replicas_in_sync, context.replica_id_in_sync_group
        return rows_of_share((number, number + 1, count), rows)

    batch = model.distribute_strategy.experimental_distribute_values_from_function(part_of)
    if not has_workers(model):
        model.make_train_function()
    elif model.train_function is None:
        model.train_function = step_of_workers(model)
    model.reset_metrics()
    logs = model.train_function(iter([batch]))
    of_all = model.get_metrics_result()  # weighted by the rows of each replica; `logs` are plain means over replicas
    logs = of_all if of_all.keys() == logs.keys() else logs
    return {name: float(np.asarray(value)) for name, value in logs.items()}


@contextlib.contextmanager
def fed_as_by_fit(model):
    """The `train_step` of `model` gets batches without the None at their end, as by `fit`, within the block."""
    model.make_train_function()
    function = model.train_function

    def train_function(*arguments):
        *state, batches = arguments  # a state on JAX; a list on PyTorch
        kept = [without_none(batch) for batch in batches]
        return function(*state, kept if isinstance(batches, list) else iter(kept))

    def without_none(batch):
        kept = max(number for number, part in enumerate(batch, 1) if part is not None)
        return tuple(batch[:kept])

    model.train_function = train_function
    try:
        yield
    finally:
        model.train_function = function


def step_of_workers(model):
    """A `train_function` of a model, for a `MultiWorkerMirroredStrategy`: Keras's own fails to reduce its logs."""
    import tensorflow as tf

    strategy = model.distribute_strategy

    @tf.function(reduce_retracing=True)
    def step(batch):
        logs = strategy.run(model.train_step, args=(batch,))
        return {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}

    return lambda batches: step(next(batches))


def predict_on_batch(model, x):
    """What `model` returns for a batch `x` in inference mode, under a TensorFlow strategy perhaps once a replica.

    Keras's own gathers what the workers of a `MultiWorkerMirroredStrategy` return. It waits for all of them, and fails
    on bool.
    """
    return model(x, training=False) if has_workers(model) else model.predict_on_batch(x)


def value_of(variable):
    """The value of a Keras variable as an array of its own, also of one that each replica has a copy of."""
    value = variable.value
    if hasattr(value, "read_value"):  # a variable of TensorFlow; a copy in each replica is no array
        value = value.read_value()
    return np.array(ops.convert_to_numpy(value))


def is_in_memory():
    """Whether NumPy reads the variables of JAX in place. There, each operation on a new shape would be compiled."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"
