"""The global batch under a TensorFlow strategy, for losses and metrics that compare rows with each other.

Under `tf.distribute.MirroredStrategy` each replica calls the loss on its own part of the batch. A loss of single rows
does not mind, but one that compares rows would miss all pairs of rows on different replicas. So it gathers the rows of
all replicas, computes the values of all, and returns those of its own rows. Gathering has a gradient, so values,
gradients and weights are those of the whole batch on one device. Traffic is O(batch · dim) for each replica; each
computes the matrix of the whole batch. On JAX a distributed batch is one array already, so nothing is gathered.

    (labels, embeddings), own = gathered(labels, embeddings)
    return own(values_of(labels, embeddings))        # of `(batch,)` values, those of this replica
"""

import keras
from keras import ops


def gathered(*tensors):
    """`(tensors, own)`: the `tensors` `(rows, …)` with the rows of all replicas, and a function that takes from values
    of all rows `(batch,)` those of this replica `(rows,)`.

    Keras averages the rows of each replica, and then the replicas. If these have different numbers of rows, `own`
    scales its values so that the result is the mean over all rows.
    """
    context = replica_context()
    if context is None:
        return tensors, lambda values: values
    rows = ops.shape(tensors[0])[0]
    counts = context.all_gather(ops.reshape(ops.cast(rows, "int32"), (1,)), axis=0)
    start = ops.sum(counts[: context.replica_id_in_sync_group])

    def own(values):
        share = ops.cast(rows * context.num_replicas_in_sync, values.dtype) / ops.cast(ops.sum(counts), values.dtype)
        return values[start : start + rows] * share

    return [of_all(context, ops.convert_to_tensor(tensor)) for tensor in tensors], own


def of_all(context, tensor):
    """The rows `(batch, …)` of all replicas. Gathering takes no masks, and forgets the known sizes of a `tensor`."""
    is_mask = keras.backend.standardize_dtype(tensor.dtype) == "bool"
    rows = context.all_gather(ops.cast(tensor, "int32") if is_mask else tensor, axis=0)
    rows = ops.reshape(rows, (-1, *tensor.shape[1:]))
    return ops.cast(rows, "bool") if is_mask else rows


def refuse_replicas(loss):
    """Raises if there are several replicas, of which each has a similarity matrix of its own rows."""
    context = replica_context()
    if context is not None:
        raise ValueError(
            f"{type(loss).__name__} takes a similarity matrix, which on each of {context.num_replicas_in_sync} "
            "replicas lacks the rows of the others. Use a loss on embeddings, such as ks.losses.NTXentLoss"
        )


def replica_context():
    """TensorFlow's context of this replica, or None if there is only one, or another backend."""
    if keras.backend.backend() != "tensorflow":
        return None
    from tensorflow import distribute

    context = distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context
