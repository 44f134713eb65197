"""A search on a page and in TensorBoard: `SearchResults` as one self-contained HTML file, and as HParams summaries.

Contract: as of `verification.pages`, which the page is made with (extra `report`: matplotlib, jinja2). The summaries
are written with `tensorboard` alone, on any backend; the extra `tuner` brings it. Imports `verification.pages`,
`_checks` and the room's `objectives`; `results` imports it.

    html = render(results)
    write_hparams(results, "logs")                       # then: tensorboard --logdir logs
"""

import time
from pathlib import Path

import numpy as np

from keras_siamese import _checks
from keras_siamese.tuning.objectives import sign_of
from keras_siamese.verification.pages import svg, template

LOG_FROM = 20  # largest over smallest value from which numbers are drawn on a logarithmic axis
UNSET = "–"


def render(results, title="Search"):
    """The HTML page `(str)` of `SearchResults`."""
    head, *rows = results.rows()
    return template("keras_siamese.tuning", "report.html.jinja").render(
        title=title,
        summary=results.summary(),
        objective=f"{results.objective.name}, {'less' if sign_of(results.objective) < 0 else 'more'} is better",
        head=head,
        rows=rows,
        failures=[(trial.name, trial.params, trial.error) for trial in results.trials if trial.error is not None],
        picture=svg(lambda figure: draw_coordinates(figure, results), (9, 4)) if can_draw(results) else None,
    )


def can_draw(results):
    """Whether there is something to compare: two finished trials that differ in a hyperparameter."""
    return len(drawn_trials(results)) > 1 and len(results.names) > len(results.constants)


def drawn_trials(results):
    return [trial for trial in results.trials if np.isfinite(trial.value)]


def draw_coordinates(figure, results):
    """Parallel coordinates on a matplotlib figure: an axis for each hyperparameter that varies and one for the
    objective, a line for each finished trial, coloured by the objective, the best one bold."""
    trials = drawn_trials(results)
    names = [name for name in results.names if name not in results.constants]
    sign = sign_of(results.objective)
    columns = [axis_of([trial.params.get(name) for trial in trials]) for name in names]
    columns.append(axis_of([trial.value for trial in trials]))
    scores = sign * np.array([trial.value for trial in trials])
    spread = float(np.ptp(scores)) or 1.0
    axes = figure.subplots()
    colours = _checks.check_installed("matplotlib", "report").colormaps["viridis_r"]
    for at in np.argsort(scores, kind="stable"):
        share = (scores[at] - scores.min()) / spread
        heights = [places[at] for places, _ in columns]
        is_best = at == int(np.argmax(scores))
        axes.plot(heights, color=colours(share), linewidth=2.5 if is_best else 1.0, alpha=0.9)
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color="#444444", linewidth=0.8)
        for height, text in ticks:
            side = {"ha": "left", "xytext": (4, 0)} if place else {"ha": "right", "xytext": (-4, 0)}
            axes.annotate(text, (place, height), **LABEL, **side)
    axes.set_xticks(range(len(columns)), [*names, results.objective.name], rotation=20, ha="right")
    axes.set(yticks=[], xlim=(-0.35, len(columns) - 0.65), ylim=(-0.05, 1.05))
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)


LABEL = {  # on white, so that the lines do not strike it through
    "textcoords": "offset points",
    "va": "center",
    "fontsize": "x-small",
    "zorder": 5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
}


def axis_of(values):
    """The height in [0, 1] of each value on its axis, and the axis's ticks, `[(height, text), …]`.

    Numbers stand where they belong, on a logarithmic axis where they span much; names are spread evenly, with a place
    of its own for what a trial does not have.
    """
    known = [value for value in values if value is not None]
    is_number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
    if not is_number or len(known) < len(values):
        places = sorted({UNSET if value is None else value for value in values}, key=order)
        height = {value: at / max(len(places) - 1, 1) for at, value in enumerate(places)}
        ticks = [(height[value], shorter(value)) for value in places]
        return [height[UNSET if value is None else value] for value in values], thinned(ticks)
    numbers = np.array(known, dtype=float)
    is_log = numbers.min() > 0 and numbers.max() / numbers.min() >= LOG_FROM
    scaled = np.log(numbers) if is_log else numbers
    low, span = scaled.min(), float(np.ptp(scaled)) or 1.0
    distinct = sorted(set(known))
    shown = distinct if len(distinct) <= 6 else [distinct[0], distinct[-1]]
    heights = ((scaled - low) / span).tolist()
    return heights, [(heights[known.index(value)], shorter(value)) for value in shown]


def order(value):
    """A key by which numbers come before names, and what is unset before both."""
    is_number = isinstance(value, (int, float))
    return (value != UNSET, not is_number, value if is_number else 0, str(value))


def shorter(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def thinned(ticks, most=10):
    """At most so many ticks, the first and the last among them."""
    if len(ticks) <= most:
        return ticks
    return [ticks[at] for at in np.unique(np.linspace(0, len(ticks) - 1, most).round().astype(int))]


def write_hparams(results, log_dir):
    """Writes a run for each trial into the folder `log_dir`: its hyperparameters, its objective, and how it ended.

    Raises:
        ImportError: without `tensorboard`, naming the extra.
        ValueError: if the folder cannot be written.
    """
    summary = _checks.check_installed("tensorboard.plugins.hparams.summary_v2", "tuner")
    folder = _checks.check_writable("log_dir", Path(log_dir) / "search").parent
    name = results.objective.name
    for trial in results.trials:
        is_plain = {key: isinstance(value, (bool, int, float, str)) for key, value in trial.params.items()}
        params = {key: value if is_plain[key] else str(value) for key, value in trial.params.items()}
        start = summary.hparams_pb(params, trial_id=trial.name)
        write_events(folder / f"trial_{trial.name}", start, {} if np.isnan(trial.value) else {name: trial.value})


def write_events(folder, hparams, scalars):
    """One event file: an HParams summary, and scalars by their tags."""
    event_file_writer = _checks.check_installed("tensorboard.summary.writer.event_file_writer", "tuner")
    event_pb2 = _checks.check_installed("tensorboard.compat.proto.event_pb2", "tuner")
    summary_pb2 = _checks.check_installed("tensorboard.compat.proto.summary_pb2", "tuner")
    values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    writer = event_file_writer.EventFileWriter(str(folder))
    for content in (hparams, summary_pb2.Summary(value=values)):
        writer.add_event(event_pb2.Event(wall_time=time.time(), step=0, summary=content))
    writer.close()
