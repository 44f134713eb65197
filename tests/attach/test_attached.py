"""A verifier of a model whose comparator is the user's own: saved, loaded and used."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.attach.attached import AttachedModel, specs_of, zeros
from tests.support.programs import PROGRAMS

FEATURES, ROWS = 4, 120


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    same = np.arange(ROWS) % 2
    left = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    return [left, (left + rng.normal(size=left.shape) * np.where(same, 0.2, 2.0)[:, None]).astype("float32")], same


def comparing_model(merge=lambda a, b: ops.abs(a - b)):
    ends, dense = [keras.Input((FEATURES,)) for _ in range(2)], layers.Dense(3, kernel_initializer="identity")
    head = layers.Dense(1, "sigmoid", kernel_initializer=keras.initializers.Constant(-1.0))
    model = keras.Model(ends, head(merge(*(dense(end) for end in ends))), name="their_model")
    model.compile("sgd", "binary_crossentropy")
    return model


@pytest.mark.each_backend
def test_a_verifier_of_any_model_is_saved_and_loaded(tmp_path):
    model, (x, same) = comparing_model(), pairs()
    verifier = ks.Verifier.calibrate(model, (x, same), criterion="accuracy")
    scores = model.predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(verifier.score(*x), scores, rtol=1e-5)
    accepted = verifier.verify(*x)
    assert (accepted == same).mean() > 0.9
    verifier.save(tmp_path / "verifier.keras")
    loaded = ks.Verifier.load(tmp_path / "verifier.keras")
    np.testing.assert_array_equal(loaded.verify(*x), accepted)
    x, same = pairs(1)
    report = loaded.evaluate((x, same))
    assert report.eer < 0.2
    found = loaded.identify(x[0][:5], x[1])
    assert found.rows.shape == (5, 1)
    expected = np.argmax([model.predict([np.repeat(row[None], ROWS, 0), x[1]], verbose=0)[:, 0] for row in x[0][:5]], 1)
    np.testing.assert_array_equal(found.rows[:, 0], expected)


@pytest.mark.deep
@pytest.mark.tensorflow
def test_a_verifier_of_any_model_is_exported(tmp_path):
    import tensorflow as tf

    x, same = pairs()
    verifier = ks.Verifier.calibrate(comparing_model(), (x, same))
    verifier.export(tmp_path / "served", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "served"))  # its functions do not keep its variables
    np.testing.assert_allclose(loaded.serve(tuple(x))["score"][:, 0], verifier.score(*x), rtol=1e-5)


def test_a_lambda_is_named_when_it_is_saved(tmp_path):
    model = comparing_model(
        lambda a, b: layers.Lambda(lambda pair: abs(pair[0] - pair[1]), output_shape=(3,), name="gap")([a, b])
    )
    x, same = pairs()
    verifier = ks.Verifier.calibrate(model, (x, same))
    with pytest.warns(UserWarning, match=r"The Lambda layers gap hold Python code.*DistanceLayer.*safe_mode=False\)$"):
        verifier.save(tmp_path / "verifier.keras")
    loaded = ks.Verifier.load(tmp_path / "verifier.keras", safe_mode=False)
    np.testing.assert_array_equal(loaded.score(*x), verifier.score(*x))


@pytest.mark.parametrize("name", ["ids_and_masks", "stacked_pairs", "unshared", "two_distances_in_a_list"])
def test_a_pair_gives_the_models_own_output(name):
    model, x = PROGRAMS[name]()
    attached = AttachedModel(model, "distance")
    left, right = attached.anatomy.parts.items(x)[:2]
    mine = ops.convert_to_numpy(attached((left, right)))
    its = keras.tree.flatten(model.predict_on_batch(x))[0]
    np.testing.assert_allclose(mine[:, 0], its.reshape(len(its), -1)[:, 0], rtol=1e-5)


def test_shapes_of_a_sample_are_kept_as_plain_values():
    sample = {"ids": np.ones((5, 3), "int32"), "parts": [np.ones((5, 2), "float32")]}
    specs = specs_of(sample)
    assert specs == {"ids": {"shape": [1, 3], "dtype": "int32"}, "parts": [{"shape": [1, 2], "dtype": "float32"}]}
    made = zeros(specs)
    assert made["ids"].dtype == "int32" and made["parts"][0].shape == (1, 2)
