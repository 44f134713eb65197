"""What is measured on several devices: functions that return numbers, lists or dicts of them, by the page's names.

FEATURES["embeddings"]()
"""

from several.around import around_training, frozen, matryoshka_training, partial_training, step_training
from several.losses import local_training, losses_trainer, similarity_training
from several.parts import array, compiled, data_of, encoder_of, own_part, seeded, siamese_of, trained


def streaming():
    import keras_siamese as ks

    kinds = ks.metrics.EqualErrorRate, ks.metrics.VerificationAUC, ks.metrics.BestVerificationAccuracy
    return [*(kind() for kind in kinds), ks.metrics.TARAtFAR(0.1), ks.metrics.VerificationAccuracy(0.7)]


def pair_training(count=70, batch_size=16):
    import keras_siamese as ks

    loss = ks.losses.ContrastiveLoss()
    model = compiled(siamese_of(), loss, [*streaming(), *loss.metrics()])
    return trained(model, ks.data.PairSequence(*data_of(count), batch_size=batch_size))


def triplet_training():
    import keras_siamese as ks

    loss = ks.losses.TripletLoss(0.3)
    model = ks.SiameseWrapper(encoder_of())
    model.build([(None, 6)] * 3)
    model = compiled(seeded(model), loss, loss.metrics())
    return trained(model, ks.data.TripletSequence(*data_of(70), batch_size=16))


def explicit_training():
    import numpy as np

    import keras_siamese as ks

    x, labels = data_of(70)
    left, right = np.arange(69), np.arange(1, 70)
    sequence = ks.data.ExplicitPairs(x, left, right, labels[left] == labels[right], batch_size=16)
    return trained(compiled(siamese_of(head="logistic"), ks.losses.WeightedBinaryCrossentropy("balanced")), sequence)


def batch_training(**options):
    import keras_siamese as ks

    loss = ks.losses.NTXentLoss(**options)
    model = compiled(seeded(encoder_of()), loss, loss.metrics())
    sequence = ks.data.BalancedBatchSequence(*data_of(70), classes_per_batch=4, samples_per_class=2)
    return trained(model, sequence, callbacks=[ks.callbacks.SetEpoch(sequence)])


def odd_batch_training():
    import keras_siamese as ks

    model = compiled(seeded(encoder_of()), ks.losses.NTXentLoss())
    sequence = ks.data.BalancedBatchSequence(*data_of(70), classes_per_batch=3, samples_per_class=3)
    return trained(model, sequence, callbacks=[ks.callbacks.SetEpoch(sequence)])


def weighted_training(reduction, weighted=True):
    """Sample weights, and a last batch that two or four devices do not divide."""
    import numpy as np

    import keras_siamese as ks

    (left, labels), (right, others) = data_of(27), data_of(27, seed=3)
    weight = np.linspace(0.1, 2.0, 27).astype("float32")
    model = compiled(siamese_of(), ks.losses.ContrastiveLoss(reduction=reduction))
    same = (labels == others).astype("float32")
    left, right, same, weight, batch_size = own_part(16, left, right, same, weight)
    history = model.fit(
        (left, right),
        same,
        sample_weight=weight if weighted else None,
        batch_size=batch_size,
        epochs=2,
        shuffle=False,
        verbose=0,
    ).history
    return {**history, "weights": [array(one) for one in model.trainable_weights]}


def evaluation(batch_size=16):
    import keras_siamese as ks

    model = compiled(siamese_of(), ks.losses.ContrastiveLoss(), streaming())
    return model.evaluate(ks.data.PairSequence(*data_of(70), batch_size=batch_size, frozen=True), verbose=0)


def prediction(count=70):
    import numpy as np

    (left, _), (right, _) = data_of(count), data_of(count, seed=3)
    return np.ravel(siamese_of().predict((left, right), batch_size=16, verbose=0)).tolist()


def embedding():
    from keras_siamese.scoring import embed

    return embed(seeded(encoder_of()), data_of(603)[0]).ravel().tolist()


def monitoring(kind, **options):
    import keras_siamese as ks

    monitor = getattr(ks.callbacks, kind)(data_of(603, seed=5), far=(0.1, 0.01), **options)
    model = compiled(siamese_of(), ks.losses.ContrastiveLoss())
    found = trained(model, ks.data.PairSequence(*data_of(64), batch_size=16), callbacks=[monitor])
    return {name: value for name, value in found.items() if "seconds" not in name}


# Facts that the probes take from tens of training steps: rounding decides where a step goes from equal embeddings.
AFTER_TRAINING = (
    "overfit_loss_left",
    "rate_loss_left",
    "best_rate_loss_left",
    "identities_gain",
    "identities_gain_low",
)


def diagnosis():
    import keras_siamese as ks

    model = compiled(siamese_of(), ks.losses.ContrastiveLoss())
    train, valid = data_of(70), data_of(103, seed=5)
    found = ks.diagnose(model, train=ks.data.PairSequence(*train, batch_size=16), validation=valid, probe=True)
    causes = [finding.cause for finding in found.findings]
    numbers = {True: {}, False: {}}
    for name, value in found.facts.numbers.items():
        numbers[name in AFTER_TRAINING][name] = value
    found = {"errors": sorted(found.facts.errors), "causes": causes}
    return {"facts": numbers[False], "facts after training": numbers[True], **found}


def slow_model():
    """A model whose learning rate is far too low, which the diagnosis finds, tests and repairs."""
    import keras_siamese as ks

    return compiled(siamese_of(), ks.losses.ContrastiveLoss(), rate=1e-5)


def confirmation():
    """The tests of the leading causes: copies of the run with and without a repair."""
    import keras_siamese as ks

    train = ks.data.PairSequence(*data_of(72), batch_size=16)
    found = ks.diagnose(slow_model(), train=train, validation=data_of(103, seed=5), budget_epochs=4)
    tests = {one.cause: one.confirmation for one in found.findings if one.confirmation is not None}
    return {
        "causes": [one.cause for one in found.findings],
        "verdicts": {cause: test.verdict for cause, test in tests.items()},
        "eer": {cause: [test.before, test.after] for cause, test in tests.items()},
    }


def reparation():
    import keras

    import keras_siamese as ks

    keras.utils.set_random_seed(1)  # a repair may make new layers
    train = ks.data.PairSequence(*data_of(72), batch_size=16)
    found = ks.repair(slow_model(), train, data_of(103, seed=5), budget=12, epochs=3, progress=False)
    return {
        "attempts": [[one.cause, one.kept] for one in found.attempts],
        "eer": [one.eer for one in found.attempts],
        "why": found.why,
    }


def verifier_of():
    import keras_siamese as ks

    return ks.Verifier.calibrate(siamese_of(), *data_of(103), criterion="eer")


def calibration():
    verifier = verifier_of()
    return [verifier.threshold, verifier.slope, verifier.offset, verifier.evidence["eer"]]


def verifier_evaluation():
    report = verifier_of().evaluate(*data_of(103, seed=5), far=(0.1,))
    return [float(report.eer), float(report.auc)]


def decision():
    left, right = data_of(7)[0], data_of(7, seed=3)[0]
    return {name: column.astype(float).tolist() for name, column in verifier_of().decide(left, right).items()}


def identification():
    found = verifier_of().identify(data_of(7, seed=3)[0], data_of(61), k=3)
    return {"rows": found.rows.tolist(), "scores": found.scores.tolist()}


def saving():
    import tempfile

    import keras_siamese as ks

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/verifier.keras"
        verifier_of().save(path)
        loaded = ks.Verifier.load(path)
    return loaded.score(data_of(7)[0], data_of(7, seed=3)[0]).tolist()


def whole_fit():
    import keras_siamese as ks

    (left, labels), (right, others) = data_of(64), data_of(64, seed=3)
    model = compiled(siamese_of(), ks.losses.ContrastiveLoss())
    same = (labels == others).astype("float32")
    *own, batch_size = own_part(16, (left, right), same)
    history = ks.fit(
        model,
        *own,
        validation_data=((left, right), same),
        epochs=2,
        batch_size=batch_size,
        shuffle=False,
        verbose=0,
    )
    return [history.history[name] for name in ("loss", "val_eer", "val_auc")]


def all_losses(rows):
    import keras

    # A backend that compiles does so for each number of rows: all losses take a minute.
    whole = {"tensorflow": (27,), "jax": (32,), "torch": (27, 32, 33)}
    return losses_trainer(not SIZE.few and rows in whole[keras.backend.backend()])(rows)


class SIZE:
    few = False  # whether one loss of each kind is enough


FEATURES = {
    "losses: batches that the devices divide": lambda: all_losses(32),
    "losses: a last batch that they do not divide": lambda: all_losses(27),
    "losses: a last batch of fewer rows than devices": lambda: all_losses(33),
    "losses on similarity matrices": similarity_training,
    "`sample_weight`": lambda: weighted_training("sum_over_batch_size"),
    '`reduction="sum"`': lambda: weighted_training("sum", False),
    '`reduction="mean_with_sample_weight"`': lambda: weighted_training("mean_with_sample_weight"),
    "`PairSequence` and streaming metrics": lambda: pair_training(64),
    "`PairSequence`, odd last batch": lambda: pair_training(70),
    "`TripletSequence`, odd last batch": triplet_training,
    "`ExplicitPairs`, odd last batch": explicit_training,
    "`BalancedBatchSequence`": batch_training,
    "`BalancedBatchSequence`, 3 × 3 rows": odd_batch_training,
    "`local_negatives=True`": local_training,
    "`train_on_batch`": step_training,
    "`MatryoshkaLoss`": matryoshka_training,
    "`Chunked`": lambda: around_training("Chunked"),
    "`CrossBatchMemory`": lambda: around_training("CrossBatchMemory"),
    "`LearnedScale`": lambda: around_training("LearnedScale"),
    "`PartialFC`": partial_training,
    "`evaluate`, odd last batch": lambda: evaluation(),
    "`predict`, odd last batch": lambda: prediction(),
    "embeddings": embedding,
    "`frozen_embeddings`": frozen,
    "`VerificationMonitor`": lambda: monitoring("VerificationMonitor"),
    "`DivergenceMonitor`": lambda: monitoring("DivergenceMonitor", on_divergence=lambda diagnosis: None),
    "`ks.fit`": whole_fit,
    "`ks.diagnose`": diagnosis,
    "`ks.diagnose(confirm=True)`": confirmation,
    "`ks.repair`": reparation,
    "`Verifier.calibrate`": calibration,
    "`Verifier.evaluate`": verifier_evaluation,
    "`Verifier.decide`": decision,
    "`Verifier.identify`": identification,
    "`Verifier.save` and `load`": saving,
}
