"""`Verifier`: the model to deploy. It holds encoder, distance, threshold and calibration, and saves as one file.

Contract: calibrate it on one set of identities, and use it on others. Scores are larger for more similar pairs.

    verifier = Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)
    print(verifier.evaluate(x_test, labels_test))
    verifier.save("verifier.keras")
    Verifier.load("verifier.keras").verify(left, right)         # (n,) bool
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_siamese import serving, verification
from keras_siamese._checks import check_choice, check_finite, check_installed, check_labels, check_number
from keras_siamese._export import export
from keras_siamese._files import replacing, write_text
from keras_siamese._reading import check_model_file
from keras_siamese._replicas import predict_on_batch
from keras_siamese._types import ArrayLike, Data, Samples, Self, Shapes, StrPath, Tensor
from keras_siamese._version import __version__
from keras_siamese.attach.anatomy import Anatomy, check_model
from keras_siamese.attach.attached import AttachedModel
from keras_siamese.card import card_of
from keras_siamese.data.sources import check_source, count_samples, fed, take
from keras_siamese.identification import FaissIndex, Gallery, Identification
from keras_siamese.scoring import Trials, attach, embed, naming, negated, predict, score, similarity
from keras_siamese.verification.groups import GroupReport
from keras_siamese.verification.histogram import ScoreHistogram
from keras_siamese.verifier_calibration import (
    BATCH_SIZE,
    check_costs,
    check_support,
    evidence_of,
    held_out,
    mapping_of,
    refuse_sides,
    rounded_up,
    threshold_for,
)
from keras_siamese.verifier_files import check_suffix, saved_with, uncompiled, warn_of_code, why_unreadable

CRITERIA = ("eer", "accuracy", "cost")
COSTS = (0.01, 1.0, 1.0)  # p_target, c_miss, c_fa, as in `verification.min_dcf`
FILE = "verifier.keras"  # in a folder of `save_pretrained`


@export
class Verifier(keras.Model):
    """A siamese model with a decision threshold: same identity or not.

    A pair is accepted if score(a, b) ≥ threshold; p(same) = σ(slope·score + offset). The score is −distance, or the
    head's output, in float32. Make a verifier with `Verifier.calibrate`. Call it on `(left, right)` to get a dict of
    "score", "probability" and "accept", each `(batch, 1)`.

    Args:
        siamese: the siamese model, as `calibrate` makes it from any model.
        threshold: lowest score at which a pair is accepted.
        slope, offset: the calibration, from `verification.platt`.
        evidence: dict of plain values that says what the threshold was chosen on: the criterion and the FAR, the
            numbers of samples, identities and pairs, EER, FMR and FNMR with intervals, and versions. It is saved too.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> x = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat(np.eye(4)[:3] * 6, 20, axis=0)
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization()])
    >>> verifier = ks.Verifier.calibrate(encoder, x, np.repeat([0, 1, 2], 20), criterion="eer")
    >>> verifier.verify(x[:2], x[[1, -1]]).tolist()
    [True, False]
    """

    def __init__(
        self,
        siamese: keras.Model,
        threshold: float,
        slope: float = 1.0,
        offset: float = 0.0,
        evidence: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_model("siamese", siamese)
        if not isinstance(evidence, (dict, type(None))):
            raise TypeError(f"`evidence` must be a dict of plain values; got {evidence!r}")
        self.siamese, self.threshold = siamese, check_number("threshold", threshold)
        self.slope, self.offset = check_number("slope", slope), check_number("offset", offset)
        self.evidence = dict(evidence or {})

    @classmethod
    def calibrate(
        cls,
        model: keras.Model,
        x: Data | ScoreHistogram,
        labels: ArrayLike | None = None,
        *,
        far: float | None = None,
        criterion: Literal["eer", "accuracy", "cost"] | None = None,
        costs: tuple[float, float, float] | None = None,
        encoder: keras.layers.Layer | None = None,
        seed: int = 0,
    ) -> Self:
        """Choose the threshold and fit the calibration on held-out identities.

        The threshold lies halfway between two scores of these pairs, so that rounding does not change the decisions. In
        a histogram, it is the edge of a bin where single scores are not known.

        Args:
            model: any siamese model, or an encoder, which is compared by cosine. The weights are shared.
            x, labels: samples `(n, …)`, or a dict of such arrays, and their identities `(n,)`, which must be used
                neither for training nor for the final report. Or `x` alone: validation data in any form that
                `VerificationMonitor` takes, such as pairs `([left, right], y)`. Or a histogram of scores of more pairs
                than fit into memory, from `verification.compare_shards` or `compare_embeddings` of embeddings of this
                encoder. Its distance must be the model's; a histogram of your own may hold a head's scores.
            far: false accept rate in (0, 1); the smallest threshold that does not exceed it on these pairs is chosen.
            criterion: "eer" (both kinds of error are equally frequent; the default without `far`), "accuracy" (most
                correct decisions on as many genuine as impostor pairs) or "cost" (least detection cost, see
                `verification.min_dcf`).
            costs: `(p_target, c_miss, c_fa)` for criterion "cost": the share of genuine pairs in use, in (0, 1), the
                cost of rejecting a genuine pair and the cost of accepting an impostor pair; (0.01, 1, 1) by default.
            encoder: the encoder, if it cannot be found in `model`.
            seed: seed of the draw of pairs, if there are more than 200,000.

        Raises:
            ValueError: if both `far` and `criterion` are given, if `far` is too small for the number of impostor pairs,
                if embeddings are not finite, if genuine pairs score no higher than impostor pairs, or if a histogram
                is not of scores that the model gives: of another distance, or outside the model's bounds.

        Warns:
            UserWarning: if `far` rests on fewer than 30 false accepts, or if no pair is accepted.

        >>> import keras, numpy as np, keras_siamese as ks
        >>> labels, rng = np.arange(900) % 150, np.random.default_rng(0)
        >>> x = rng.normal(size=(150, 8))[labels] + 0.5 * rng.normal(size=(900, 8))
        >>> encoder = keras.Sequential([keras.Input((8,)), keras.layers.UnitNormalization()])
        >>> histogram = ks.verification.compare_shards(encoder.predict(x, verbose=0), labels, progress=False)
        >>> verifier = ks.Verifier.calibrate(encoder, histogram, far=1e-3)  # of all 404,550 pairs
        >>> verifier.evidence["impostor_pairs"], round(verifier.evidence["fmr"], 6)
        (402300, 0.000999)
        """
        if far is not None and criterion is not None:
            raise ValueError(f"Give `far` or `criterion`, not both; got far={far!r} and criterion={criterion!r}")
        if far is not None:
            far = check_number("far", far, low=0, high=1, open_low=True, open_high=True)
        else:
            criterion = check_choice("criterion", criterion or "eer", CRITERIA)
        if costs is not None and criterion != "cost":
            raise ValueError(f'`costs` needs criterion="cost"; got costs={costs!r} with criterion={criterion!r}')
        if criterion == "cost":
            costs = check_costs(COSTS if costs is None else costs)
        pairs = held_out(model, x, labels, encoder, seed)
        if far is not None:
            check_support(far, pairs.counts[1])
        siamese = pairs.anatomy.wrapper
        if siamese is None or pairs.anatomy.other is not None:
            siamese = AttachedModel.of(pairs.anatomy)
        slope, offset = mapping_of(pairs, siamese.name)
        rule = f"far={far:g}" if far is not None else criterion
        if criterion == "cost":
            rule = "cost, p_target={:g}, c_miss={:g}, c_fa={:g}".format(*costs)
        threshold = threshold_for(pairs, far, criterion, costs)
        evidence = evidence_of(pairs, rule, far, threshold)
        verifier = cls(siamese, rounded_up(threshold), slope, offset, evidence)
        pairs.build(verifier)
        return verifier

    @property
    def parts(self) -> keras.Model | Anatomy:
        """What embeds and compares: the siamese model itself, or the `Anatomy` of a user's model."""
        return getattr(self.siamese, "anatomy", self.siamese)

    def build(self, input_shape: Shapes) -> None:
        if not self.siamese.built:
            self.siamese.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        # float32 under any dtype policy, because the threshold is a float32 number.
        return self._decided(similarity(self.siamese, ops.cast(self.siamese(inputs, training=training), "float32")))

    def _decided(self, scores):
        """Decision, probability and score of pairs, each of the shape of their float32 `scores`, by name."""
        probability = ops.sigmoid(self.slope * scores + self.offset)
        return {"accept": scores >= self.threshold, "probability": probability, "score": scores}

    def score(self, left: Samples, right: Samples) -> np.ndarray:
        """Score the pairs `left[i]`, `right[i]`, each `(n, …)`: `(n,)`, larger = more similar."""
        return self.decide(left, right)["score"]

    def probability(self, left: Samples, right: Samples) -> np.ndarray:
        """p(same) `(n,)` of the pairs `left[i]`, `right[i]`, each `(n, …)`, if half of all pairs are genuine."""
        return self.decide(left, right)["probability"]

    def verify(self, left: Samples, right: Samples) -> np.ndarray:
        """Decide on the pairs `left[i]`, `right[i]`, each `(n, …)`: `(n,)` bool, True = accepted."""
        return self.decide(left, right)["accept"]

    def decide(self, left: Samples, right: Samples) -> dict[str, np.ndarray]:
        """Score, probability and decision of the pairs `left[i]`, `right[i]`, each `(n, …)`: `(n,)` arrays by name."""
        left, right = check_source("left", left), check_source("right", right)
        counts = count_samples(left), count_samples(right)
        if counts[0] != counts[1]:
            raise ValueError(f"`left` and `right` must have as many samples; got {counts[0]} and {counts[1]}")
        left, right = fed(take(left, slice(None)), "left"), fed(take(right, slice(None)), "right")  # reads lazy sources
        with naming("left", left, getattr(self.parts, "encoder", None)):
            run = lambda sides: predict_on_batch(self, (sides["left"], sides["right"]))  # noqa: E731
            output = predict(run, {"left": left, "right": right}, BATCH_SIZE)
        return {name: np.asarray(column)[:, 0] for name, column in output.items()}

    def trials(self, x: Data, labels: ArrayLike | None = None, seed: int = 0) -> Trials:
        """The comparisons of items `x` with their identities `labels`, or of pairs as `calibrate` takes them."""
        refuse_sides("evaluate(([left, right], same))", x, labels)
        if labels is not None:
            return Trials.from_labels(x, labels, seed=seed)
        model = getattr(self.siamese, "model", self.siamese)
        return attach(model, x, similar_label=self.evidence.get("similar_label"), seed=seed)[1]

    def evaluate(
        self, x: Data, labels: ArrayLike | None = None, *, far: ArrayLike = (0.01, 0.001), seed: int = 0
    ) -> verification.VerificationReport:
        """Evaluate at this verifier's threshold on identities that calibration did not see: `VerificationReport`.

        Args:
            x, labels: samples `(n, …)`, or a dict of such arrays, and their identities `(n,)`; or `x` alone, see
                `calibrate`.
            far: false accept rates at which to report the TAR.
            seed: seed of the intervals, and of the draw of pairs if there are more than 200,000.
        """
        trials = self.trials(x, labels, seed)
        scored = score(self.parts, trials, BATCH_SIZE, exactly=True)
        left, right = scored.trials.pair_identities
        decision = {"threshold": self.threshold, "calibration": (self.slope, self.offset)}
        report = verification.evaluate(
            scored.same, scored.scores, far=far, left=left, right=right, seed=seed, **decision
        )
        if negated(self.parts) is not None:
            report.pairs["negated"] = negated(self.parts)
        return report

    def enroll(self, x: Samples, labels: ArrayLike | None = None, index: Literal["faiss"] | None = None) -> Gallery:
        """Embed the samples `x` `(m, …)` with their identities `labels` `(m,)`, if known, as a `Gallery`.

        With `index="faiss"` (extra `faiss`), faiss searches the gallery and the results are the same. It needs the
        distance "euclidean", "squared_euclidean", "cosine", "angular" or "inner_product", and no custom head.
        """
        x = check_source("x", x)
        labels = None if labels is None else check_labels("labels", labels, length=count_samples(x))
        check_choice("index", index, (None, "faiss"))
        embeddings = check_finite("embeddings", embed(self.parts.encoder, x, BATCH_SIZE, "x"))
        return Gallery(embeddings, labels, None if index is None else FaissIndex(self.parts, embeddings))

    def identify(
        self,
        probe: Samples,
        gallery: Any,
        k: int = 1,
        where: str | None = None,
    ) -> Identification:
        """Find the `k` samples of the gallery that are most similar to each probe, as an open-set `Identification`.

        Each probe is compared with the whole gallery, block by block. The chance of a false accept grows with the
        number of enrolled samples: calibrate at a `far` of about the wanted rate divided by this number.

        Args:
            probe: samples `(n, …)`.
            gallery: a `Gallery` from `enroll`, a `StoredGallery`, or `(x, labels)`, or samples alone.
            k: number of matches for each probe, best first, from 1 to the size of the gallery.
            where: of a `StoredGallery`, a condition in SQL on its columns: only such samples are found.

        >>> import keras, numpy as np, keras_siamese as ks
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.UnitNormalization()])
        >>> x, names = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), ["ada", "ada", "bo", "bo"]
        >>> verifier = ks.Verifier.calibrate(encoder, x, names)
        >>> found = verifier.identify(np.array([[3.0, 0.1], [-1.0, -1.0]]), (x, names))
        >>> found.labels[:, 0].tolist(), found.accepted[:, 0].tolist()
        (['ada', 'ada'], [True, False])
        """
        if not hasattr(gallery, "find"):
            is_labelled = isinstance(gallery, (tuple, list)) and len(gallery) == 2
            gallery = self.enroll(*gallery) if is_labelled else self.enroll(gallery)
        probe = check_source("probe", probe)
        probes = check_finite("embeddings", embed(self.parts.encoder, probe, BATCH_SIZE, "probe"))
        rows, scores, labels = gallery.find(self.parts, probes, k, where)
        return Identification(rows, scores, scores >= np.float32(self.threshold), labels)

    def save(self, filepath: StrPath, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the verifier to a `.keras` file, as `keras.Model.save` does. An existing file is replaced as a whole, or
        stays as it is if saving fails.

        Args:
            filepath: the file; its name must end with ".keras".
            overwrite, **kwargs: as in `keras.Model.save`.

        Raises:
            ValueError: if `filepath` ends otherwise, as `load` could not read the file.

        Warns:
            UserWarning: if the model has a Python lambda, or a class or function that is not registered with Keras.
                The file holds no code, so `load` does not find these in a new process.
        """
        path = str(filepath)
        check_suffix(path)
        warn_of_code(self.siamese)
        if "://" in path or not overwrite or kwargs.get("zipped") is False:
            super().save(filepath, overwrite=overwrite, **kwargs)
            return
        with replacing(path) as draft:
            super().save(draft, **kwargs)

    def card(
        self,
        report: verification.VerificationReport | None = None,
        groups: verification.GroupReport | None = None,
        *,
        name: str | None = None,
        dataset: str | None = None,
        description: str | None = None,
        license: str | None = None,
    ) -> str:
        """The model card: what this verifier is for, and what was measured, in the format of the Hugging Face Hub.

        Margaret Mitchell and others, "Model cards for model reporting", FAT* 2019, https://arxiv.org/abs/1810.03993.

        Args:
            report: the `VerificationReport` of `evaluate` on test identities.
            groups: the `GroupReport` of `verification.compare_groups` on test identities.
            name: the model's name; by default that of the siamese model.
            dataset: what the report was measured on, in words.
            description: a paragraph on the purpose and the data, in Markdown.
            license: identifier of the licence, such as "apache-2.0".

        Returns:
            Markdown with a YAML head, a string. What was not measured is named as missing.

        >>> import keras, keras_siamese as ks
        >>> encoder = keras.Sequential([keras.Input((2,)), keras.layers.UnitNormalization()])
        >>> x, names = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), ["ada", "ada", "bo", "bo"]
        >>> verifier = ks.Verifier.calibrate(encoder, x, names)
        >>> print(verifier.card(name="Signatures").partition("# Signatures")[2])
        <BLANKLINE>
        ...
        Chosen by the rule `eer` on 2 genuine and 4 impostor pairs of 2 identities...
        """
        for what, given, kind in (("report", report, verification.VerificationReport), ("groups", groups, GroupReport)):
            if not isinstance(given, (kind, type(None))):
                raise TypeError(f"`{what}` must be a {kind.__name__}; got {type(given).__name__}")
        texts = {"dataset": dataset, "description": description, "license": license}
        return card_of(self, report, groups, name=name or self.siamese.name, **texts)

    def save_pretrained(
        self,
        folder: StrPath,
        report: verification.VerificationReport | None = None,
        groups: verification.GroupReport | None = None,
        **card: str,
    ) -> None:
        """Save the verifier and its model card as a folder for the Hugging Face Hub: verifier.keras and README.md.

        Then `huggingface_hub.upload_folder(repo_id=…, folder_path=folder)` uploads it, and
        `Verifier.load(huggingface_hub.snapshot_download(repo_id))` loads it.

        Args:
            folder: the folder; made if it is missing.
            report, groups, **card: as in `card`.
        """
        text = self.card(report, groups, **card)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder / FILE)
        write_text(folder / "README.md", text)

    def export(self, filepath: StrPath, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Export the verifier for a runtime without Keras. Its outputs are those of `decide`, each `(n, 1)`.

        Formats: "tf_saved_model" from TensorFlow and JAX (extra `tensorflow`); "onnx" from all three backends (extra
        `onnx`, or `onnx-jax`); "litert" from TensorFlow, and from PyTorch for one pair at a time (litert-torch). The
        inputs are named "left" and "right" (or "left_a", … if the encoder has several), and the outputs "accept",
        "probability" and "score". In JAX's SavedModel and PyTorch's LiteRT the inputs are numbered instead.

        Args:
            filepath: folder or file to write; for LiteRT the name must end with ".tflite".
            format: "tf_saved_model", "onnx", "litert", or another format of `keras.Model.export`.
            **kwargs: other arguments of `keras.Model.export`, such as `verbose` and `input_signature`.

        Raises:
            ValueError: if the backend cannot write this format, or if the installed Keras does not know it.
            ImportError: if a package that the format needs is not installed.
        """
        serving.check_format(format)
        if format == "onnx":
            check_installed("onnx", "onnx")
        with serving.each_tower_apart(self.siamese):
            super().export(filepath, format=format, **serving.options(self.siamese, format, kwargs))
        if format == "onnx":
            serving.name_outputs(filepath)

    @staticmethod
    def load(path: StrPath, safe_mode: bool = True) -> Verifier:
        """Load a verifier from the file `path`, by default in Keras's safe mode, which refuses `Lambda` layers.

        `path` may also be a folder that `save_pretrained` wrote.

        In safe mode, the file may come from somebody else: it cannot run code or name other files, see `SECURITY.md`.

        Raises:
            ValueError: if the file does not exist or is damaged, if it holds another model, or if another version of
                the package saved it in a form that this one cannot read.
        """
        if Path(path).is_dir() and (Path(path) / FILE).is_file():
            path = Path(path) / FILE
        made_with = saved_with(path)
        try:
            if safe_mode:
                check_model_file(path)
            with warnings.catch_warnings():
                # Keras 3.15's own, of lists of layers without weights in a model inside of a model: nothing is lost.
                warnings.filterwarnings("ignore", "Skipping nested container", UserWarning)
                model = keras.saving.load_model(path, safe_mode=safe_mode)
        except MemoryError:
            raise
        except Exception as error:  # Keras raises errors of all types for damaged configs
            found = f"{str(path)!r} cannot be read: {why_unreadable(path, error)}"
            made = f"It was made with {made_with}, this is keras_siamese {__version__} with Keras {keras.__version__}"
            raise ValueError(f"`path` must be a saved Verifier; {found.rstrip('.')}. {made}") from error
        if not isinstance(model, Verifier):
            raise ValueError(f"`path` must be a saved Verifier; {str(path)!r} holds a {type(model).__name__}")
        return model

    def __repr__(self) -> str:
        compared = self.siamese.distance or self.siamese.name
        sign = "" if negated(self.parts) is None else f", score=-{negated(self.parts)}"
        return f"Verifier(threshold={self.threshold:.4g}{sign}, {compared!r}, {self.evidence})"

    def get_config(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("threshold", "slope", "offset", "evidence")}
        siamese = uncompiled(keras.saving.serialize_keras_object(self.siamese))
        return {**super().get_config(), "siamese": siamese, **plain}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**{**config, "siamese": keras.saving.deserialize_keras_object(config["siamese"])})

    def get_build_config(self) -> dict[str, Any] | None:
        return self.siamese.get_build_config()

    def build_from_config(self, config: dict[str, Any] | None) -> None:
        if config:
            self.build(config["towers"])
