"""Draws docs/flagged_run.png, the picture in README.md: the first run of `keras-siamese demo` with seed 0.

python docs/flagged_run.py
"""

from pathlib import Path

import keras
from matplotlib.figure import Figure

from keras_siamese import data, demo
from keras_siamese.diagnosis.report.pictures import draw_curves

keras.utils.set_random_seed(0)
train, valid, _ = data.split_identities(*demo.scan_digits(0), (0.6, 0.2, 0.2), seed=0)
_, monitor = demo.fit(demo.RECIPE, train, valid, seed=0)
figure = Figure(figsize=(9, 3.4), layout="constrained")
draw_curves(figure, monitor.diagnosis)
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
