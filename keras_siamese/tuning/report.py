"""Report of a search: `SearchResults` as one self-contained HTML file, and as HParams summaries for TensorBoard.

Contract: the page needs the extra `report` (matplotlib, jinja2). The summaries need only the package `tensorboard`, on
any backend; the extra `tuner` installs it.

    html = render(results)
    write_hparams(results, "logs")                       # then: tensorboard --logdir logs
"""

import time
from pathlib import Path

import numpy as np

from keras_siamese import _checks
from keras_siamese.tuning.objectives import sign_of
from keras_siamese.verification.pages import svg, template

LOG_FROM = 20  # ratio of largest to smallest value from which an axis is logarithmic
UNSET = "–"
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8}  # so that lines do not cross the text
LABEL = {"textcoords": "offset points", "va": "center", "fontsize": "x-small", "zorder": 5, "bbox": BOX}


def render(results, title="Search"):
    """The HTML page `(str)` of `SearchResults`."""
    head, *rows = results.rows()
    return template("keras_siamese.tuning", "report.html.jinja").render(
        title=title,
        summary=results.summary(),
        objective=f"{results.objective.name}, {'smaller' if sign_of(results.objective) < 0 else 'larger'} is better",
        head=head,
        rows=rows,
        failures=[(trial.name, trial.params, trial.error) for trial in results.trials if trial.error is not None],
        picture=svg(lambda figure: draw_coordinates(figure, results), (9, 4)) if can_draw(results) else None,
    )


def can_draw(results):
    """Whether there is something to compare: at least two finished trials, and a hyperparameter that varies."""
    return len(drawn_trials(results)) > 1 and len(results.names) > len(results.constants)


def drawn_trials(results):
    return [trial for trial in results.trials if np.isfinite(trial.value)]


def draw_coordinates(figure, results):
    """Draws parallel coordinates on a matplotlib figure: an axis for each hyperparameter that varies and the objective.

    There is a line for each finished trial, coloured by the objective; the best one is bold.
    """
    trials = drawn_trials(results)
    names = [name for name in results.names if name not in results.constants]
    values = [trial.value for trial in trials]
    columns = [*(axis_of([trial.params.get(name) for trial in trials]) for name in names), axis_of(values)]
    scores = sign_of(results.objective) * np.array(values)
    spread = float(np.ptp(scores)) or 1.0
    axes = figure.subplots()
    colours = _checks.check_installed("matplotlib", "report").colormaps["viridis_r"]
    for at in np.argsort(scores, kind="stable"):
        share, width = (scores[at] - scores.min()) / spread, 2.5 if at == int(np.argmax(scores)) else 1.0
        axes.plot([places[at] for places, _ in columns], color=colours(share), linewidth=width, alpha=0.9)
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color="#444444", linewidth=0.8)
        for height, text in ticks:
            side = {"ha": "left", "xytext": (4, 0)} if place else {"ha": "right", "xytext": (-4, 0)}
            axes.annotate(text, (place, height), **LABEL, **side)
    axes.set_xticks(range(len(columns)), [*names, results.objective.name], rotation=20, ha="right")
    axes.set(yticks=[], xlim=(-0.35, len(columns) - 0.65), ylim=(-0.05, 1.05))
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)


def axis_of(values):
    """The height in [0, 1] of each value on its axis, and the ticks of the axis, `[(height, text), …]`.

    Numbers are placed on a linear axis, or on a logarithmic one if they span a factor of `LOG_FROM`. Names are spread
    evenly; trials that do not have the hyperparameter get a place of their own.
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
    """A sort key: unset values come first, then numbers, then names."""
    is_number = isinstance(value, (int, float))
    return (value != UNSET, not is_number, value if is_number else 0, str(value))


def shorter(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def thinned(ticks, most=10):
    """At most `most` of the ticks, including the first and the last."""
    if len(ticks) <= most:
        return ticks
    return [ticks[at] for at in np.unique(np.linspace(0, len(ticks) - 1, most).round().astype(int))]


def write_hparams(results, log_dir):
    """Writes one TensorBoard run for each trial into the folder `log_dir`: its hyperparameters and its objective."""

    def module(name):
        return _checks.check_installed(f"tensorboard.{name}", "tuner")

    hparams, files = module("plugins.hparams.summary_v2"), module("summary.writer.event_file_writer")
    events, summaries = module("compat.proto.event_pb2"), module("compat.proto.summary_pb2")
    folder = _checks.check_writable("log_dir", Path(log_dir) / "search").parent
    for trial in results.trials:
        plain = (bool, int, float, str)
        params = {key: value if isinstance(value, plain) else str(value) for key, value in trial.params.items()}
        value = summaries.Summary.Value(tag=results.objective.name, simple_value=trial.value)
        writer = files.EventFileWriter(str(folder / f"trial_{trial.name}"))
        shown = summaries.Summary(value=[] if np.isnan(trial.value) else [value])
        for content in (hparams.hparams_pb(params, trial_id=trial.name), shown):
            writer.add_event(events.Event(wall_time=time.time(), step=0, summary=content))
        writer.close()
