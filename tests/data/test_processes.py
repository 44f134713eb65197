"""Processes that decode image files: the same pixels and errors as in the calling thread, in every environment."""

import json
import logging
import multiprocessing
import os
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_siamese.data import ImageFiles, PairSequence, pixels, processes
from tests.support.fresh_python import fresh

Image = pytest.importorskip("PIL.Image")
ImageFile = pytest.importorskip("PIL.ImageFile")
OPTIONS = {"size": (6, 5), "mode": "RGB", "interpolation": "bilinear"}
RNG = np.random.default_rng(3)


@pytest.fixture
def pool(monkeypatch):
    """The processes of this test, on two cores whatever the machine has."""
    pool = processes.DecoderProcesses()
    monkeypatch.setattr(processes, "_processes", pool)
    monkeypatch.setattr(processes, "cores", lambda: 2)
    yield pool
    pool.end()
    assert pool._count == 0


@pytest.fixture
def started(monkeypatch):
    """The processes that were started, in their order."""
    found = []
    start = processes.DecoderProcess.__init__
    monkeypatch.setattr(processes.DecoderProcess, "__init__", lambda self: found.append(self) or start(self))
    return found


@pytest.fixture
def paths(tmp_path):
    for number in range(7):
        shape = (8 + number, 9, 3)
        Image.fromarray(RNG.integers(0, 256, shape, dtype="uint8")).save(tmp_path / f"{number} ü.png")
    return [str(tmp_path / f"{number} ü.png") for number in range(7)]


def assert_same(paths, options=OPTIONS):
    images, expected = processes.decode_all(paths, options, workers=2), pixels.decode_all(paths, options)
    assert images.dtype == expected.dtype
    np.testing.assert_array_equal(images, expected)
    return images


def test_processes_give_what_this_one_gives(pool, started, paths, tmp_path):
    assert assert_same(paths).dtype == np.uint8
    assert_same(paths, {"size": (3, 4), "mode": "L", "interpolation": "lanczos"})
    Image.fromarray(RNG.integers(0, 65536, (6, 5)).astype("uint16")).save(tmp_path / "deep.png")
    assert assert_same([paths[0], str(tmp_path / "deep.png")]).dtype == np.float32
    assert len(started) == 1  # it stays


def test_batches_larger_than_the_memory_come_in_parts(pool, started, paths, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "BYTES", 4 * 6 * 5 * 3 * 3)  # of three images
    Image.fromarray(RNG.integers(0, 65536, (6, 5)).astype("uint16")).save(tmp_path / "deep.png")
    assert_same(paths)
    assert_same([*paths, str(tmp_path / "deep.png"), *paths])
    assert len(started) == 1
    monkeypatch.setattr(processes, "BYTES", 100)
    assert_same(paths)


def test_one_worker_and_workers_of_keras_start_no_process(pool, started, paths, monkeypatch):
    processes.decode_all(paths, OPTIONS, workers=1)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "some process")
    processes.decode_all(paths, OPTIONS, workers=2)
    assert started == []


def test_threads_use_as_many_processes_as_there_are_cores(pool, started, paths):
    with ThreadPoolExecutor(6) as threads:
        for images in threads.map(lambda _: processes.decode_all(paths, OPTIONS, workers=6), range(30)):
            np.testing.assert_array_equal(images, pixels.decode_all(paths, OPTIONS))
    assert 1 <= len(started) <= 2
    assert len(pool._idle) == len(started)


def test_errors_are_those_of_this_process(pool, started, paths, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    for bad in ("bad.png", "gone.png"):
        with pytest.raises(OSError, match=rf"The image '.*{bad}' cannot be read: (Unidentified|FileNotFound)"):
            processes.decode_all([paths[0], str(tmp_path / bad)], OPTIONS, workers=2)
    assert_same(paths)
    assert len(started) == 1


def test_settings_of_pillow_apply_at_once(pool, paths, tmp_path, monkeypatch):
    whole = tmp_path / "whole.jpg"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype="uint8")).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-200])
    cut = [str(whole), str(tmp_path / "cut.jpg")]
    for truncated in (False, True, False):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated)
        helper = pool.borrow(2)
        assert (helper.decode_all(cut, OPTIONS) is not None) == truncated
        pool.give_back(helper)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 70)
    with pytest.raises(OSError, match="decompression bomb"):
        processes.decode_all(paths, OPTIONS, workers=2)


def test_relative_paths_follow_the_folder_of_this_process(pool, paths, tmp_path, monkeypatch):
    assert_same(paths)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (5, 6), (len(folder), ord(folder), 0)).save(tmp_path / folder / "x.png")
        monkeypatch.chdir(tmp_path / folder)
        helper = pool.borrow(2)
        assert helper.decode_all(["x.png"], OPTIONS)[0, 0, 0, 1] == ord(folder)
        pool.give_back(helper)


def test_a_process_that_ends_is_replaced(pool, started, paths):
    assert_same(paths)
    started[0]._process.kill()
    started[0]._process.wait()
    assert_same(paths)
    assert_same(paths)
    assert [helper.is_alive for helper in started] == [False, True]


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false", None])
def test_without_processes_the_threads_decode(pool, started, paths, monkeypatch, caplog, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert_same(paths)
    assert len(started) == 1
    assert caplog.text.count("decoded by threads alone") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_its_own(pool):
    processes._forget()
    assert processes._processes is not pool
    assert processes._of_parents.pop() is pool


SCRIPT = """
import json, multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
multiprocessing.set_start_method("spawn")
from keras_siamese.data import ImageFiles, PairSequence, processes
processes.cores = lambda: 2
files = ImageFiles(json.loads(sys.argv[1]), (6, 5))
sequence = PairSequence(files, [0, 0, 0, 1, 1, 1, 2], batch_size=4, workers=2)
with ThreadPoolExecutor(2) as threads:
    batches = list(threads.map(sequence.__getitem__, range(2)))
print(json.dumps([[helper._process.pid for helper in processes._processes._idle], float(batches[0][0][0].sum())]))
"""


@pytest.mark.deep
def test_processes_need_no_guarded_script_and_end_with_it(paths, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    pids, total = fresh(run, script, json.dumps(paths), PYTHONWARNINGS="error::ResourceWarning")
    assert 1 <= len(pids) <= 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    sequence = PairSequence(ImageFiles(paths, (6, 5)), [0, 0, 0, 1, 1, 1, 2], batch_size=4)
    assert total == float(sequence[0][0][0].sum())
