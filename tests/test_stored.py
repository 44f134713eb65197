"""A gallery on disk: it answers as one in memory, and loses nothing that was acknowledged."""

import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.verifier import Verifier
from tests.support.verifiers import clusters, encoder_model, wrapper

pytest.importorskip("lancedb", reason="the extra `gallery`")


@pytest.fixture(scope="module")
def verifier():
    return Verifier.calibrate(ks.SiameseWrapper(encoder_model(), "cosine"), *clusters(20, 4, seed=1))


@pytest.fixture(scope="module")
def people():
    x, labels = clusters(40, 3, seed=2)
    return x, np.array([f"person {label}" for label in labels])


@pytest.mark.parametrize("distance", ["cosine", "angular", "euclidean", "squared_euclidean"])
def test_it_answers_as_a_gallery_in_memory(tmp_path, people, distance):
    verifier = Verifier.calibrate(ks.SiameseWrapper(encoder_model(), distance), *clusters(20, 4, seed=1))
    x, names = people
    gallery = ks.StoredGallery(tmp_path, verifier)
    ids = np.concatenate([gallery.enroll(x[:70], names[:70]), gallery.enroll(x[70:], names[70:])])
    assert len(gallery) == len(x) and len(set(ids.tolist())) == len(x) and repr(gallery).endswith("120 samples)")
    probes = clusters(30, 5, seed=3)[0]
    expected = verifier.identify(probes, (x, names), k=4)
    found = verifier.identify(probes, gallery, k=4)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-7)  # other blocks round otherwise
    np.testing.assert_array_equal(found.accepted, expected.accepted)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.dtype.kind == expected.labels.dtype.kind == "U"
    np.testing.assert_array_equal(found.rows, ids[expected.rows])


def test_many_equal_samples_are_all_found(tmp_path, verifier):
    """More of them than candidates are asked for at first."""
    x = np.repeat(clusters(2, 1, seed=5)[0], 100, axis=0)
    gallery = ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(x, np.repeat([0, 1], 100))
    found = verifier.identify(x[:1], gallery, k=60)
    assert (found.labels == 0).all() and len(set(found.rows[0].tolist())) == 60


def test_it_is_filtered_shrinks_and_is_opened_again(tmp_path, verifier, people):
    x, names = people
    site = np.where(np.arange(len(x)) % 2, "north", "south")
    ids = ks.StoredGallery(tmp_path, verifier).enroll(x, names, site=site, year=np.arange(len(x)))
    verifier.save(tmp_path / "verifier.keras")
    again = Verifier.load(tmp_path / "verifier.keras")
    gallery = ks.StoredGallery(tmp_path, again)
    found = again.identify(x[:4], gallery, where="site = 'north'")
    expected = again.identify(x[:4], (x[1::2], names[1::2]))
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.rows[1, 0] == ids[1] and found.rows[0, 0] != ids[0]
    assert gallery.remove(where="year >= 100") == 20 and gallery.remove(ids[[1, 3]]) == 2
    assert gallery.remove(ids[[1]]) == 0 and gallery.remove([]) == 0 and len(gallery) == 98
    assert ids[1] not in again.identify(x[1:2], gallery, k=98).rows
    gallery.enroll(x[:1], names[:1], year=[7], site=["west"])
    assert again.identify(x[:1], gallery, where="site = 'west' AND year = 7").labels[0, 0] == names[0]
    gallery.optimize()
    assert len(ks.StoredGallery(tmp_path, again)) == 99


def test_an_index_is_approximate_and_its_recall_is_measured(tmp_path, verifier):
    x, labels = clusters(300, 4, seed=4)
    gallery = ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(x, labels)
    assert gallery.recall(x[:20], k=5) == 1.0 and not gallery.indexed
    gallery.build_index("IvfFlat", num_partitions=2)
    assert gallery.indexed and 0.5 < gallery.recall(x[:20], k=5) <= 1.0
    assert verifier.identify(x[:5], gallery).rows.shape == (5, 1)


def test_embeddings_of_another_model_are_refused(tmp_path, verifier, people):
    gallery = ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(*people)
    other = Verifier.calibrate(ks.SiameseWrapper(encoder_model(), "cosine"), *clusters(20, 4, seed=1))
    with pytest.raises(ValueError, match="was made with another encoder"):
        ks.StoredGallery(tmp_path, other)
    with pytest.raises(ValueError, match="`gallery` must be made with this verifier's encoder"):
        other.identify(people[0][:2], gallery)
    assert len(ks.StoredGallery(tmp_path, other, name="of-the-other-model")) == 0


@pytest.mark.each_backend
@pytest.mark.deep_on("jax")
def test_an_encoder_that_was_trained_further_is_refused(tmp_path, people):
    siamese = ks.SiameseWrapper(encoder_model(), "cosine")
    verifier = Verifier.calibrate(siamese, *clusters(20, 4, seed=1))
    gallery = ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(*people)
    siamese.compile("adam", loss=ks.losses.ContrastiveLoss(margin=0.5))
    siamese.fit(ks.data.PairSequence(*clusters(20, 4, seed=4)), verbose=0)
    again = Verifier.calibrate(siamese, *clusters(20, 4, seed=1))
    for one in (verifier, again):  # both have the weights of now
        with pytest.raises(ValueError, match="weights have changed since this gallery was opened"):
            one.identify(people[0][:2], gallery)
    with pytest.raises(ValueError, match="weights have changed since this gallery was opened"):
        gallery.enroll(*people)


def test_samples_that_another_process_removes_during_a_search_are_not_waited_for(tmp_path, verifier, people):
    x, names = people
    gallery, other = (ks.StoredGallery(tmp_path, verifier) for _ in range(2))
    ids = gallery.enroll(x, names)
    other._open()
    count_rows, is_first = gallery.table.count_rows, [True]

    def counted_before_the_others_remove(where=None):
        count = count_rows(where)
        if is_first.pop() if is_first else False:
            other.remove(ids[2:])
        return count

    gallery.table.count_rows = counted_before_the_others_remove
    assert set(verifier.identify(x[:1], gallery, k=2).rows[0].tolist()) == set(ids[:2].tolist())


def test_small_numbers_of_the_first_call_do_not_limit_later_ones(tmp_path, verifier, people):
    x, gallery = people[0][:2], ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(x, np.array([1, 2], "uint8"), year=np.array([20, 21], "int8"), height=np.ones(2, "float16"))
    gallery.enroll(x, [1000, 70_000], year=[2020, 2021], height=[1e6, 0.1])
    found = verifier.identify(x, gallery, k=2, where="label = 70000 OR height = 1000000.0")
    assert found.labels.tolist() == [[1000, 70_000], [70_000, 1000]]


def test_mistakes_are_named(tmp_path, verifier, people):
    x, names = people
    with pytest.raises(ValueError, match="needs the distance euclidean"):
        ks.StoredGallery(tmp_path, Verifier.calibrate(wrapper(), *clusters(20, 4, seed=1)))
    gallery = ks.StoredGallery(tmp_path, verifier)
    with pytest.raises(ValueError, match="`k` must be at most the number of samples that can be found, 0; got 1"):
        verifier.identify(x[:1], gallery)
    assert gallery.remove(where="true") == 0 and len(gallery) == 0
    with pytest.raises(ValueError, match="The gallery is empty"):
        gallery.build_index()
    with pytest.raises(ValueError, match="The gallery is empty: enroll samples before `recall`"):
        gallery.recall(x, k=1)
    with pytest.raises(ValueError, match="`columns` may not be named id, label, vector; got 'label'"):
        gallery.enroll(x, names, label=names)
    gallery.enroll(x, names, site=names)
    for columns in ({}, {"place": names}):
        with pytest.raises(ValueError, match=r"`columns` must be those of the gallery, \['site'\]"):
            gallery.enroll(x, names, **columns)
    with pytest.raises(ValueError, match="`labels` must have one entry"):
        gallery.enroll(x, names[:3], site=names)
    with pytest.raises(ValueError, match="`labels` and columns must be of the kinds"):
        gallery.enroll(x[:2], names[:2], site=np.array([b"\xff", b"a"], object))
    for where in ("colour = 'red'", "site ="):
        with pytest.raises(ValueError, match="`where` must be a condition in SQL on id, label, site"):
            verifier.identify(x[:1], gallery, where=where)
    with pytest.raises(ValueError, match="can be found, 0"):
        verifier.identify(x[:1], gallery, where="site = 'nowhere'")
    with pytest.raises(ValueError, match="`where` needs a StoredGallery"):
        verifier.identify(x[:1], (x, names), where="site = 'a'")
    with pytest.raises(ValueError, match="Give `ids` or `where`"):
        gallery.remove()
    with pytest.raises(TypeError, match="`ids` must be whole numbers"):
        gallery.remove([0.5])
    assert len(gallery) == len(x)


def test_files_that_cannot_be_read_are_not_taken_for_a_wrong_condition(tmp_path, verifier, people):
    gallery = ks.StoredGallery(tmp_path, verifier)
    gallery.enroll(*people)
    for file in (tmp_path / "gallery.lance" / "data").iterdir():
        file.unlink()
    with pytest.raises(OSError, match="The gallery 'gallery' in .* cannot be read: "):
        verifier.identify(people[0][:1], gallery, where="label = 'person 1'")


@pytest.mark.deep  # LanceDB tries again for seconds
def test_a_server_that_does_not_answer_is_named(verifier, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ALLOW_HTTP"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(ConnectionError, match=r"The gallery at 's3://people/gallery' cannot be reached\. Check"):
        ks.StoredGallery("s3://people/gallery", verifier)


def test_a_name_that_no_table_can_have_is_refused_at_once(tmp_path, verifier):
    with pytest.raises(ValueError, match="may contain only"):
        ks.StoredGallery(tmp_path, verifier, "of the others")


ENROLLS = """
import sys
import numpy as np
import keras_siamese as ks

address, verifier, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
gallery = ks.StoredGallery(address, ks.Verifier.load(verifier))
rng = np.random.default_rng(first)
for call in range(first, first + 1000):
    gallery.enroll(rng.normal(size=(7, 6)).astype("float32"), np.full(7, call))
    print(call, flush=True)
"""


ENROLLS_TOO = ENROLLS.replace("range(first, first + 1000)", "range(first, first + 8)")


@pytest.fixture(params=["a folder", "a server"])
def address(request, tmp_path, monkeypatch):
    """Where a gallery is kept: a folder, and a server that speaks S3."""
    if request.param == "a folder":
        yield str(tmp_path / "gallery")
        return
    boto3 = pytest.importorskip("boto3", reason="the extra `test`")
    server = pytest.importorskip("moto.server", reason="the extra `test`").ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    secrets = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    for name, value in {**secrets, "AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    bucket = f"people-{uuid.uuid4()}"  # the server keeps those of earlier tests
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/gallery"
    server.stop()


@pytest.mark.deep
def test_several_processes_enroll_at_once(tmp_path, verifier, address):
    """Also the first call, which makes the table."""
    verifier.save(tmp_path / "verifier.keras")
    told = [sys.executable, "-c", ENROLLS_TOO, address, str(tmp_path / "verifier.keras")]
    processes = [subprocess.Popen([*told, str(1000 * number)], stdout=subprocess.DEVNULL) for number in range(4)]
    assert [process.wait() for process in processes] == [0, 0, 0, 0]
    gallery = ks.StoredGallery(address, verifier)
    labels, counts = np.unique(gallery.table.to_arrow()["label"].to_numpy(), return_counts=True)
    assert (counts == 7).all() and labels.tolist() == [1000 * n + call for n in range(4) for call in range(8)]


@pytest.mark.deep
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path, verifier, address):
    """kill −9 at five moments: each call that returned is there, whole, and at most one more."""
    verifier.save(tmp_path / "verifier.keras")
    acknowledged = []
    for first in range(0, 5000, 1000):
        command = [sys.executable, "-c", ENROLLS, address, str(tmp_path / "verifier.keras"), str(first)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        acknowledged.append(int(process.stdout.readline()))
        time.sleep(0.3 + 0.17 * (first // 1000))
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.stdout.close(), process.wait()
        gallery = ks.StoredGallery(address, verifier)
        labels, counts = np.unique(gallery.table.to_arrow()["label"].to_numpy(), return_counts=True)
        assert (counts == 7).all()  # a call is there as a whole
        assert set(acknowledged) <= set(labels.tolist()) and len(labels) <= len(acknowledged) + first // 1000 + 1
    assert len(acknowledged) > 20


@pytest.mark.deep
def test_a_gallery_on_a_server_answers_as_one_in_memory(verifier, people, address):
    x, names = people
    gallery, probes = ks.StoredGallery(address, verifier), clusters(30, 5, seed=3)[0]
    ids = gallery.enroll(x, names, year=np.arange(len(x)))
    expected = verifier.identify(probes, (x, names), k=4)
    np.testing.assert_array_equal(verifier.identify(probes, gallery, k=4).rows, ids[expected.rows])
    gallery.build_index("IvfFlat", num_partitions=2)
    assert gallery.remove(ids[:60]) == 60 and len(ks.StoredGallery(address, verifier)) == len(x) - 60
    gallery.optimize()
    found = verifier.identify(probes, ks.StoredGallery(address, verifier), k=1, where="year > 100")
    assert np.isin(found.rows, ids[101:]).all()
