"""Argument checks: what each returns, and that an error names the argument, what was expected and what came."""

import os
import stat

import ml_dtypes
import numpy as np
import pytest

from keras_siamese import _checks as checks

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int64(1), np.float64(0.25)])
def test_numbers(value):
    number = checks.check_number("margin", value, low=0, high=1)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, INF, -INF])
def test_numbers_out_of_range(value):
    with pytest.raises(ValueError, match=r"`margin` must be in \[0, 1\]; got") as error:
        checks.check_number("margin", value, low=0, high=1)
    assert repr(value) in str(error.value)


def test_open_ends_are_shown_and_refused():
    assert checks.check_number("far", 0, low=0, high=1, open_high=True) == 0.0
    with pytest.raises(ValueError, match=r"`far` must be in \(0, 1\); got 0"):
        checks.check_number("far", 0, low=0, high=1, open_low=True, open_high=True)
    with pytest.raises(ValueError, match=r"`far` must be in \(0, 1\); got 1"):
        checks.check_number("far", 1, low=0, high=1, open_low=True, open_high=True)


def test_infinity_passes_unless_the_end_is_open():
    assert checks.check_number("threshold", -INF) == -INF
    with pytest.raises(ValueError, match=r"`margin` must be in \(0, inf\); got inf"):
        checks.check_number("margin", INF, low=0, open_low=True, open_high=True)
    with pytest.raises(ValueError, match="got nan"):
        checks.check_number("threshold", NAN)


@pytest.mark.parametrize("value", ["1", None, True, np.True_, [1.0], np.array([1.0]), 1j])
def test_not_numbers(value):
    with pytest.raises(TypeError, match=r"`margin` must be a number; got .* of type"):
        checks.check_number("margin", value)


def test_integers():
    assert checks.check_integer("rank", np.int32(3), low=1, high=3) == 3
    assert type(checks.check_integer("rank", np.int32(3))) is int
    with pytest.raises(ValueError, match="`rank` must be at least 1; got 0"):
        checks.check_integer("rank", 0, low=1)
    with pytest.raises(ValueError, match="`rank` must be at most 3; got 4"):
        checks.check_integer("rank", 4, high=3)
    for value in (2.0, "2", True, None):
        with pytest.raises(TypeError, match="`rank` must be an integer; got"):
            checks.check_integer("rank", value)


def test_choices():
    assert checks.check_choice("head", None, (None, "logistic")) is None
    assert checks.check_choice("head", "logistic", (None, "logistic")) == "logistic"
    with pytest.raises(ValueError, match="`head` must be one of None, 'logistic'; got 'logit'"):
        checks.check_choice("head", "logit", (None, "logistic"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_finite(dtype):
    array = np.array([[1.0, 2.0], [3.0, NAN]], dtype)
    assert checks.check_finite("scores", array[:1]) is not None
    with pytest.raises(ValueError, match="`scores` must be finite; 1 of its 4 values"):
        checks.check_finite("scores", array)
    with pytest.raises(ValueError, match="`scores` must be finite; 2 of its 2 values"):
        checks.check_finite("scores", np.array([INF, -INF], dtype))


def test_finite_leaves_other_kinds_alone():
    np.testing.assert_array_equal(checks.check_finite("x", [1, 2]), [1, 2])
    np.testing.assert_array_equal(checks.check_finite("x", ["a"]), ["a"])


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([3, 1, 3], "i"),
        ([[3], [1], [3]], "i"),
        ([3.0, 1.0, -3.0], "i"),
        (["b", "a", "b"], "U"),
        (np.array(["b", "a", "b"], object), "U"),
        (np.array([3, 1, 3], object), "i"),
        (np.array([3.0, 1.0, 3.0], object), "i"),
        (np.array([3, "a", 3], object), "U"),
        (np.array([2**70, 1, 3], object), "U"),
        (np.array([3, 1, 3], "uint8"), "u"),
    ],
)
def test_labels(labels, kind):
    clean = checks.check_labels("labels", labels, length=3)
    assert clean.shape == (3,)
    assert clean.dtype.kind == kind
    assert clean.tolist() == [int(v) if kind in "iu" else str(v) for v in np.ravel(labels)]


def test_large_integer_labels_stay_apart():
    labels = [2**53, 2**53 + 1, 2**62]
    assert checks.check_labels("labels", labels).tolist() == labels


def test_labels_of_wrong_shape_or_length():
    with pytest.raises(ValueError, match=r"`labels` must have shape \(n,\).*got shape \(2, 2\)"):
        checks.check_labels("labels", [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        checks.check_labels("labels", 3)
    with pytest.raises(ValueError, match="one entry for each of the 4 samples; got 3"):
        checks.check_labels("labels", [0, 1, 2], length=4)


@pytest.mark.parametrize("value", [0.5, 1e30, -1e30])
def test_labels_that_are_no_whole_numbers(value):
    with pytest.raises(ValueError, match="`labels` must be whole numbers or strings; got"):
        checks.check_labels("labels", [1.0, value])


@pytest.mark.parametrize("value", [NAN, INF])
def test_labels_that_are_no_numbers(value):
    with pytest.raises(ValueError, match="`labels` must be finite"):
        checks.check_labels("labels", [1.0, value])


def test_missing_labels_are_no_identity():
    for missing in (None, NAN, np.float64("nan")):
        with pytest.raises(ValueError, match="`labels` must be whole numbers or strings; got 1 missing, such as"):
            checks.check_labels("labels", np.array(["a", "b", missing], object))


def test_missing_labels_of_pandas():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="2 missing"):
        checks.check_labels("labels", pandas.Series(["a", pandas.NA, None, "b"], dtype=object))
    with pytest.raises(ValueError, match="1 missing"):
        checks.check_labels("labels", pandas.Series(["a", None, "b"], dtype="string"))
    assert checks.check_labels("labels", pandas.Series(["a", "b"])).tolist() == ["a", "b"]


@pytest.mark.parametrize("same", [[1, 0, 1], [True, False, True], [[1.0], [0.0], [1.0]], np.array([1, 0, 1], "uint8")])
def test_same(same):
    clean = checks.check_same("same", same, length=3)
    assert clean.dtype == bool
    assert clean.tolist() == [True, False, True]


def test_same_holds_only_zero_and_one():
    for wrong in (2, -1, 0.5, NAN):
        with pytest.raises(
            ValueError, match=r"`same` must hold only 1 \(genuine\) and 0 \(impostor\); got also"
        ) as error:
            checks.check_same("same", [1, 0, wrong])
        assert str(float(wrong))[:3] in str(error.value) or str(wrong) in str(error.value)
    with pytest.raises(ValueError, match=r"got also.*'yes'"):
        checks.check_same("same", ["yes", "yes"])
    with pytest.raises(ValueError, match=r"got shape \(2, 2\)"):
        checks.check_same("same", np.eye(2))
    with pytest.raises(ValueError, match="each of the 3 pairs; got 2"):
        checks.check_same("same", [1, 0], length=3)


def test_writable_makes_the_folder_and_leaves_the_file(tmp_path):
    path = checks.check_writable("report", tmp_path / "new" / "folder" / "report.html")
    assert path.parent.is_dir()
    assert not path.exists()
    path.write_text("kept")
    assert checks.check_writable("report", str(path)).read_text() == "kept"
    assert list(path.parent.iterdir()) == [path]


def test_unwritable_paths(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`report` must be the path of a file; .* is a folder"):
        checks.check_writable("report", tmp_path)
    with pytest.raises(ValueError, match=r"`report` must be a path that can be written; .*below.* cannot"):
        checks.check_writable("report", tmp_path / "file" / "below")
    for thing in (3, None, True):
        with pytest.raises(TypeError, match="`report` must be a path; got"):
            checks.check_writable("report", thing)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ValueError, match="`report` must be a path that can be written"):
        checks.check_writable("report", tmp_path / "report.html")


def test_missing_extra_is_named():
    assert checks.check_installed("math", "test").pi > 3
    with pytest.raises(ImportError, match=r'no_such_module is needed.*pip install "keras-siamese\[report\]"'):
        checks.check_installed("no_such_module", "report")
    with pytest.raises(ImportError, match=r"no_such_package.part is needed here and is not installed: pip"):
        checks.check_installed("no_such_package.part", "report")


@pytest.mark.parametrize(
    ("content", "why"),
    [("raise ImportError('libfoo.so: not found')", "libfoo.so: not found"), ("import no_such_part", "no_such_part")],
)
def test_an_extra_that_is_there_and_broken_is_not_called_missing(tmp_path, monkeypatch, content, why):
    (tmp_path / "broken_extra.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=f"broken_extra is needed here and cannot be imported .*{why}.*pip install"):
        checks.check_installed("broken_extra", "report")
