"""Embeddings in several files: any rows of them, and what is said of files that hold none."""

import pickle

import numpy as np
import pytest

from keras_siamese.verification import Shards

N, DIM = 700, 6


def files_of(folder, embeddings):
    """The embeddings in two `.npy` files and a Parquet file of several row groups."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(exist_ok=True)
    paths = [folder / "a.npy", folder / "b.parquet", folder / "c.npy"]
    np.save(paths[0], embeddings[:250])
    lists = pyarrow.FixedSizeListArray.from_arrays(embeddings[250:500].ravel(), DIM)
    parquet.write_table(pyarrow.table({"embedding": lists}), paths[1], row_group_size=70)
    np.save(paths[2], embeddings[500:])
    return paths


def test_files_are_read_by_rows_also_by_url(tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(N, DIM)).astype("float32")
    fsspec = pytest.importorskip("fsspec")
    paths = files_of(tmp_path, embeddings)
    urls = [f"memory://shards/{path.name}" for path in paths]
    for path, url in zip(paths, urls, strict=True):
        with fsspec.open(url, "wb") as file:
            file.write(path.read_bytes())
    for files in (paths, urls, [paths[0], urls[1], paths[2]]):
        shards = Shards(files)
        assert shards.shape == (N, DIM) and shards.bytes == embeddings.nbytes
        for rows in (slice(0, N), slice(240, 260), slice(248, 502), slice(499, 500), slice(700, 900)):
            np.testing.assert_array_equal(shards[rows], embeddings[rows])


@pytest.mark.filterwarnings("ignore::UserWarning:zarr")  # its own, of stores in memory
def test_zarr_arrays_are_read_among_others_also_by_url(tmp_path):
    zarr = pytest.importorskip("zarr", reason="needs the extra `distributed`")
    embeddings = np.random.default_rng(0).normal(size=(N, DIM)).astype("float32")
    for place in (str(tmp_path), "memory://arrays"):
        zarr.open(f"{place}/b.zarr", mode="w", shape=(450, DIM), chunks=(70, DIM), dtype="float32")[:] = embeddings[
            250:
        ]
        np.save(tmp_path / "a.npy", embeddings[:250])
        shards = pickle.loads(pickle.dumps(Shards([tmp_path / "a.npy", f"{place}/b.zarr"])))
        assert shards.shape == (N, DIM) and shards.bytes == embeddings.nbytes
        for rows in (slice(0, N), slice(240, 260), slice(318, 322)):
            np.testing.assert_array_equal(shards[rows], embeddings[rows])
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    with pytest.raises(ValueError, match="must hold embeddings; .*group.zarr' cannot be read"):
        Shards(tmp_path / "group.zarr")


def test_wrong_files_are_named(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(5))
    np.save(tmp_path / "wide.npy", np.ones((5, 3)))
    np.save(tmp_path / "good.npy", np.ones((5, 2)))
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object))
    with pytest.raises(ValueError, match=r"must hold embeddings \(rows, dim\); .*flat.npy' holds \(5,\)"):
        Shards(tmp_path / "flat.npy")
    with pytest.raises(ValueError, match="embeddings of one dim; got 2, 3"):
        Shards([tmp_path / "good.npy", tmp_path / "wide.npy"])
    with pytest.raises(ValueError, match=r"must end in .npy, .parquet or .zarr; got .*x.csv"):
        Shards(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="objects.npy' cannot be read: .*Python objects"):
        Shards(tmp_path / "objects.npy")
    with pytest.raises(ValueError, match="at least one file"):
        Shards([])
    with pytest.raises(TypeError, match="`rows` must be a slice with step 1; got 3"):
        Shards(tmp_path / "good.npy")[3]


@pytest.mark.parametrize(
    "lists", [[[1, 2, 3], [4, 5, 6, 7, 8]], [[1.0, 2.0], [3.0, 4.0], [5.0], [6.0, 7.0, 8.0]], [1, 2]]
)
def test_lists_of_several_lengths_are_refused(tmp_path, lists):
    """Also if their mean length is a whole number, and if a later row group has another length."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"embedding": lists}), tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(ValueError, match="lists of one length; 'embedding' in .*a.parquet' does not"):
        Shards(tmp_path / "a.parquet")[:]
