"""Draws docs/causes/CAUSE.png, the pictures on the pages of the causes.

Each picture shows a run of the fault benchmark with a planted fault, and the healthy run of the same base program and
seed. The runs are those in benchmarks/results.

    python docs/causes.py
"""

import gzip
import json
import math
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
RUNS = HERE.parent / "benchmarks" / "results" / "faults_test.jsonl.gz"
FAULTY, HEALTHY = "#d62728", "#7f7f7f"


def read():
    return [json.loads(line) for line in gzip.decompress(RUNS.read_bytes()).decode().splitlines()]


def strongest(runs, healthy):
    """Returns for each cause the most harmful run and the healthy run with the same base and seed."""
    found = {}
    for run in runs:
        if run["kind"] == "fault" and (run["base"], run["seed"]) in healthy and run["facts"]:
            beside = healthy[run["base"], run["seed"]]
            harm = abs(run["outcome"] - beside["outcome"]) if run["name"] != "leakage" else -final(run)
            if run["name"] not in found or harm > found[run["name"]][0]:
                found[run["name"]] = (harm, run, beside)
    return {name: pair[1:] for name, pair in found.items()}


def final(run):
    return run["history"]["eer"][-1]


def draw(run, healthy, path):
    figure = Figure(figsize=(7, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    planted, base = textwrap.fill(run["dose"] or run["name"], 50), run["base"].replace("-", ", ")
    for one, colour, label in ((healthy, HEALTHY, f"healthy ({base})"), (run, FAULTY, planted)):
        epochs = range(1, len(one["history"]["loss"]) + 1)
        loss, eer = one["history"]["loss"], one["history"]["eer"]
        left.plot(epochs, [value / loss[0] for value in loss], color=colour, label=label)
        right.plot(epochs, eer, color=colour, label=label)
        for panel, curve in ((left, loss), (right, eer)):
            mark_nan(panel, epochs, curve, colour)
    left.set(xlabel="epoch", ylabel="training loss / first", ylim=(0, None))
    known = [eer for eer in run["history"]["eer"] if math.isfinite(eer)]
    right.set(xlabel="epoch", ylabel="held-out EER", ylim=(0, max([0.55, *(1.05 * eer for eer in known)])))
    labels = right.get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    figure.draw_without_rendering()  # the legend changes the ticks, and the ticks the space for their labels
    figure.savefig(path, dpi=100, metadata={"Software": None})


def mark_nan(panel, epochs, curve, colour):
    """Draws a cross on the time axis at each epoch whose value is not finite."""
    missing = [epoch for epoch, value in zip(epochs, curve, strict=True) if not math.isfinite(value)]
    if missing:
        panel.plot(missing, [0] * len(missing), "x", color=colour, clip_on=False)
        panel.annotate("NaN", (missing[0], 0), (4, 6), textcoords="offset points", color=colour, fontsize="small")


if __name__ == "__main__":
    runs = read()
    healthy = {(r["base"], r["seed"]): r for r in runs if r["kind"] == "control" and r["name"] == "healthy"}
    (HERE / "causes").mkdir(exist_ok=True)
    for name, (run, beside) in strongest(runs, healthy).items():
        draw(run, beside, HERE / "causes" / f"{name}.png")
