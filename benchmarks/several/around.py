"""What is made around an encoder or its loss, and single steps, on the devices of this process.

around_training("Chunked")                    # {"loss": […], "weights": […]}
"""

from several.parts import array, compiled, data_of, encoder_of, own_part, seeded, trained


def batches_of():
    import keras_siamese as ks

    return ks.data.BalancedBatchSequence(*data_of(72), classes_per_batch=4, samples_per_class=2)


def around_training(kind):
    import keras

    import keras_siamese as ks

    options = {"Chunked": {"rows": 4}, "CrossBatchMemory": {"size": 32}, "LearnedScale": {"scale": 4.0}}[kind]
    encoder = seeded(encoder_of())
    model = compiled(getattr(ks.layers, kind)(encoder, **options), ks.losses.NTXentLoss())
    model.build((None, 6))
    found = trained(model, sequence := batches_of(), callbacks=[ks.callbacks.SetEpoch(sequence)])
    return {**found, "embeddings": array(keras.ops.convert_to_tensor(encoder.predict_on_batch(data_of(8)[0])[:8]))}


def matryoshka_training():
    import keras_siamese as ks

    loss = ks.losses.MatryoshkaLoss(ks.losses.MultiSimilarityLoss(beta=8.0), dims=[4, 2])
    return trained(
        compiled(seeded(encoder_of()), loss), sequence := batches_of(), callbacks=[ks.callbacks.SetEpoch(sequence)]
    )


def partial_training():
    """Proxies of twelve classes, of which eight are in a step."""
    import keras

    import keras_siamese as ks

    batches = batches_of()
    classes = ks.callbacks.PartialFC(batches, num_classes=12, sample=8)
    model = keras.Sequential([encoder_of(), ks.layers.ProxyLogits(8)])
    model = compiled(seeded(model), ks.losses.ArcFaceLoss(scale=8.0))
    given = {"steps_per_epoch": len(batches), "epochs": 2, "shuffle": False, "verbose": 0}
    history = model.fit(classes.batches(), callbacks=[classes], **given).history
    return {**history, "proxies": classes.proxies.ravel().tolist()}


def frozen():
    import tempfile

    import keras_siamese as ks

    with tempfile.TemporaryDirectory() as folder:
        return ks.frozen_embeddings(seeded(encoder_of()), data_of(103)[0], folder, verbose=0).ravel().tolist()


def step_training():
    """Two steps of Keras's `train_on_batch`, whose loss compares rows, as a mean and as a sum."""
    import keras_siamese as ks

    found = {}
    for reduction in ("sum_over_batch_size", "sum"):
        loss = ks.losses.NTXentLoss(reduction=reduction)
        model = compiled(seeded(encoder_of()), loss, loss.metrics(), rate=0.01)
        x, labels, _ = own_part(32, *data_of(32))
        logs = [model.train_on_batch(x, labels, return_dict=True) for _ in range(2)]
        found[reduction] = [[float(one[name]) for name in sorted(one)] for one in logs]
        found[f"{reduction}, weights"] = [array(weight) for weight in model.trainable_weights]
    return found
