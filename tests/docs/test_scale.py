"""Tests that the blocks of docs/guides/scale.md run."""

from pathlib import Path

import keras
import pytest

from keras_siamese import verification
from tests.support.pages import DOCS, blocks, run

SCALE = DOCS / "guides" / "scale.md"


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow")
def test_the_blocks_about_large_batches_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks("python", SCALE)
    assert len(code) == 7
    namespace = run(code[:2], SCALE)
    assert int(namespace["model"].seen) == 256
    again = keras.saving.load_model(tmp_path / "training.keras", safe_mode=True)
    assert int(again.seen) == 256 and again.loss.temperature == namespace["model"].loss.temperature


@pytest.mark.parametrize("number", range(2, 5))
def test_the_blocks_about_many_identities_and_embeddings_run(tmp_path, monkeypatch, number):
    monkeypatch.chdir(tmp_path)
    code = blocks("python", SCALE)
    namespace = run([code[0], *code[number : number + 1]] if number < 4 else [code[0], *code[3:]], SCALE)
    if number == 2:
        assert namespace["classes"].proxies.shape == (128, 32)
    if number == 4:
        assert namespace["histogram"].genuines == 128 * 6 and Path("comparison").exists()
        interval = namespace["intervals"]["eer"]
        assert interval.low < namespace["histogram"].eer() < interval.high
        whole = verification.evaluate_retrieval(namespace["z"], namespace["labels"])
        assert namespace["found"].map_at_r == whole.map_at_r and namespace["rows"].shape == (512, 3)
