"""Writes the tables of `benchmarks/README.md`, between their markers, from `benchmarks/results/*.json`.

python benchmarks/tables.py            # after a benchmark
python benchmarks/tables.py --check    # exits with 1 if the page does not show the recorded results
"""

import json
import re
import statistics
import sys
from pathlib import Path

from losses import BEYOND_FLOOR
from scale_tables import sections

HERE = Path(__file__).parent


def milliseconds(seconds):
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def ratio(peer, own):
    return f"{peer / own:.1f}×" if peer / own < 10 else f"{peer / own:,.0f}×"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def footnote(found):
    about = found["surroundings"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = f"{about['cores']} core{'s' if about['cores'] > 1 else ''} of {about['processor']}"
    return f"`{found['command']}`, {about['date']}, {where}, Python {about['python']}, {versions}."


def losses(found):
    """One table for each batch size: milliseconds by backend, then ratios to the floor and to other libraries."""
    backends = list(found["rows"])
    parts, batches = [], sorted({row["batch"] for rows in found["rows"].values() for row in rows})
    for batch in batches:
        by_loss = {}
        for backend, rows in found["rows"].items():
            for row in rows:
                if row["batch"] == batch:
                    by_loss.setdefault(row["loss"], {})[backend] = row
        lines = [losses_row(name, rows, backends) for name, rows in by_loss.items()]
        header = ["loss", *(f"{backend}, ms" for backend in backends), "× floor", "memory, MiB"]
        header += ["PML, ms", "PML ÷ torch", "PML ÷ jax", "TFA ÷ tensorflow"]
        if batch == batches[-1]:
            header.append("beyond the floor")
            for line, (name, rows) in zip(lines, by_loss.items(), strict=True):
                line.append(beyond_floor(name) if over_floor(rows) > 2 else "")
        parts.append(f"**{batch:,} rows**\n\n{table(header, lines)}")
    return "\n\n".join([*parts, footnote(found)])


def over_floor(rows):
    """The time of a loss divided by the floor, rounded as the table shows it, on the best backend."""
    return round(min(row["seconds"] / row["floor"] for row in rows.values()), 1)


def beyond_floor(name):
    return BEYOND_FLOOR.get(name) or BEYOND_FLOOR[name.split(",")[0]]


def losses_row(name, rows, backends):
    times = [milliseconds(rows[backend]["seconds"]) if backend in rows else "" for backend in backends]
    memory = [row["memory"] / 2**20 for row in rows.values() if row["memory"] is not None]
    cells = [name, *times, f"{over_floor(rows):.1f}", f"{min(memory):,.0f}–{max(memory):,.0f}" if memory else ""]
    peer = rows["torch"]["peers"].get("PML", "") if "torch" in rows else ""
    cells.append(milliseconds(peer) if isinstance(peer, float) else peer)
    for peer, backend in (("PML", "torch"), ("PML", "jax"), ("TFA", "tensorflow")):
        found = rows[backend]["peers"].get(peer) if backend in rows else None
        cells.append(ratio(found, rows[backend]["seconds"]) if isinstance(found, float) else "")
    return cells


def importing(found):
    lines = [
        [backend, *(f"{1e3 * seconds:,.0f}" for seconds in row.values())] for backend, row in found["rows"].items()
    ]
    header = ["backend", *(f"{name}, ms" for name in next(iter(found["rows"].values())))]
    return f"{table(header, lines)}\n\n{footnote(found)}"


def towers(found):
    lines = []
    for backend, rows in found["rows"].items():
        for row in rows:
            seconds = row["seconds"]
            times = [f"{1e3 * seconds[name]:.2f}" for name in ("wrapper", "two runs", "by hand", "keras.io")]
            own, peer = seconds["wrapper"], seconds["keras.io"]
            ratios = [f"{own / seconds['by hand']:.3f}", f"{peer / own:.2f}×", f"{peer / seconds['two runs']:.2f}×"]
            lines.append([backend, str(row["batch"]), *times, *ratios])
    header = [
        "backend",
        "pairs a step",
        "wrapper, ms",
        "two runs, ms",
        "by hand, ms",
        "keras.io, ms",
        "wrapper ÷ by hand",
        "keras.io ÷ wrapper",
        "keras.io ÷ two runs",
    ]
    return table(header, lines) + "\n\n" + footnote(found)


def resume(found):
    lines = []
    for backend, row in found["rows"].items():
        phases = [str(count) for count in row["phases"].values()]
        lines.append([backend, f"{row['equal']} of {row['kills']}", *phases, f"{row['seconds']:.1f}"])
    phases = next(iter(found["rows"].values()))["phases"]
    header = ["backend", "equal to the run that was not killed", *(f"killed {name}" for name in phases), "fit, s"]
    return f"{table(header, lines)}\n\n{footnote(found)}"


SOAKED = {"backups": "epochs, Keras alone with backups", "models": "models, Keras alone"}


def soak(found):
    """A line for each backend and part: the last block, and each slope with its interval."""
    lines = []
    for backend, parts in found["rows"].items():
        for part, row in parts.items():
            blocks, slopes = row["blocks"], row["slopes"]
            ends = [f"{1e3 * statistics.median(blocks['seconds']):.0f}", f"{blocks['memory'][-1] / 2**20:,.0f}"]
            ends += [f"{blocks[name][-1]:.0f}" for name in ("files", "threads")]
            units = {"seconds": 1e3, "memory": 2**-20, "files": 1, "threads": 1}
            grown = [interval([unit * value for value in slopes[name]]) for name, unit in units.items()]
            cells = [cell for pair in zip(ends, grown, strict=True) for cell in pair]
            load = f"{min(blocks['load']):.0f} to {max(blocks['load']):.0f}"
            name = SOAKED.get(part, part)
            lines.append([backend, f"{row['count']:,} {name}", f"{row['per']:,}", *cells, load])
    header = ["backend", "run", "slopes are for", "each, ms", "slope", "memory, MiB", "slope", "files", "slope"]
    return table([*header, "threads", "slope", "load"], lines) + "\n\n" + footnote(found)


def interval(values):
    """A slope and its 95 % interval as text; a slope that is 0 with certainty is "0"."""
    slope, low, high = (f"{value:+.1f}" for value in values)
    return f"{slope} ({low} to {high})" if any(values) else "0"


def data(found):
    """A table for batches from arrays, then those of `image_files`."""
    lines = []
    for row in found["memory"]:
        seconds, batches = dict(row["seconds"]), row["batches"]
        rates = [f"{batches / seconds.pop(name):,.0f}" for name in ("sequence", "gather")]
        share = f"{row['seconds']['gather'] / row['seconds']['sequence']:.2f}"
        peer = [f"{name}: {batches / other:,.0f}" for name, other in seconds.items()]
        growth = " / ".join(f"{bytes / 2**20:,.0f}" for bytes in row["memory"].values())
        size = f"{row['samples']:,} of {row['side']} × {row['side']}"
        lines.append([row["sequence"], size, *rates, share, ", ".join(peer), growth, f"{row['data'] / 2**20:,.0f}"])
    header = ["sequence", "samples", "batches/s", "gather, batches/s", "of the gather", "peer, batches/s"]
    header += ["growth: sequence / gather / peer, MiB", "samples, MiB"]
    return "\n\n".join([table(header, lines), *image_files(found.get("image_files", [])), footnote(found)])


def image_files(rows):
    """A table of the batches from image files by kind and workers, with those of a DataLoader, and a note."""
    if not rows:
        return ["Image files: not measured yet."]
    lines = []
    for row in rows:
        seconds, batches = row["seconds"], row["batches"]
        for name in (name for name in seconds if not name.startswith("DataLoader")):
            peer = seconds.get(f"DataLoader, {name}")
            cells = [f"{batches / peer:,.1f}", f"{peer / seconds[name]:.2f}"] if peer else ["", ""]
            lines.append([row["kind"], name, f"{batches / seconds[name]:,.1f}", *cells])
    header = ["image files", "workers", "batches/s", "DataLoader, batches/s", "÷ DataLoader"]
    checks = ", ".join(f"{row['checking']:.1f} s ({row['kind']})" for row in rows)
    note = f"Finding and checking {rows[0]['files']:,} files, once, when the `ImageFolder` is made: {checks}."
    return [table(header, lines), note]


def verification(found):
    """A table of seconds by number of scores, then one for all pairs, the file and the gallery."""
    sides = list(found["scores"][0]["seconds"])
    compared = [("roc_curve", "histogram, all figures"), ("roc_curve", "eer"), ("roc_curve, all points", "roc")]
    lines = []
    for row in found["scores"]:
        seconds = row["seconds"]
        times = [f"{seconds[name]:.3f}" if name in seconds else "" for name in sides]
        ratios = [ratio(seconds[peer], seconds[own]) if peer in seconds else "" for peer, own in compared]
        lines.append([f"{row['number']:,}", *times, *ratios])
    header = ["scores", *(f"{name}, s" for name in sides), *(f"{peer} ÷ {own}" for peer, own in compared)]
    pairs = []
    for row in found["pairs"]:
        seconds = row["seconds"]
        times = [f"{seconds[name]:.2f}" if name in seconds else "" for name in found["pairs"][0]["seconds"]]
        peers = [seconds.get(name) for name in ("products and histograms", "products")]
        shares = [f"{peer / seconds['compare_embeddings']:.2f}" if peer else "" for peer in peers]
        pairs.append([f"{row['number']:,}", *times, *shares, f"{(row['memory'] or 0) / 2**20:,.0f}"])
    names = [f"{name}, s" for name in found["pairs"][0]["seconds"]]
    shares = ["products and histograms ÷ compare_embeddings", "products ÷ compare_embeddings"]
    all_pairs = table(["embeddings", *names, *shares, "growth, MiB"], pairs)
    rest = [seconds_of(found[key], what) for key, what in (("file", "lines"), ("gallery", "gallery")) if key in found]
    long = []
    for row in found["long files"]:
        size, memory = (f"{row[name] / 2**30:.2f}" for name in ("size", "memory"))
        times = [f"{seconds:.0f}" for seconds in row["seconds"].values()]
        long.append([f"{row['number']:,}", row["kind"], size, *times, memory])
    names = ["lines", "file", "GiB", "the command, s", "of processor, s", "largest memory, GiB"]
    return "\n\n".join([table(header, lines), all_pairs, *rest, table(names, long), footnote(found)])


def seconds_of(row, what):
    """A table of one line: the number of `what`, and the seconds of each side."""
    times = [f"{value:.2f}" for value in row["seconds"].values()]
    return table([what, *(f"{name}, s" for name in row["seconds"])], [[f"{row['number']:,}", *times]])


def callbacks(found):
    lines = []
    for backend, row in found["rows"].items():
        seconds, shares = row["seconds"], row["shares"]
        added = [f"{100 * (seconds[name] / seconds['without'] - 1):+.1f} %" for name in shares]
        own = [f"{100 * share:.1f} %" for share in shares.values()]
        cells = [text for pair in zip(own, added, strict=True) for text in pair]
        sizes = [str(row["batches"]), str(row["items"])]
        lines.append([backend, *sizes, f"{seconds['without']:.1f}", *cells, row["date"]])
    monitors = ["VerificationMonitor", "by difference", "DivergenceMonitor", "by difference"]
    return (
        table(["backend", "batches", "held-out drawings", "epoch without, s", *monitors, "measured"], lines)
        + "\n\n"
        + footnote(found)
    )


def attach(found):
    """A table of the counts by backend, then the forms in which something is not as it should be."""
    lines, notes = [], []
    for backend, rows in found["rows"].items():
        counts = [sum(bool(row.get(what)) for row in rows.values()) for what in ("attaches", "same_score", "direction")]
        shares = sorted(100 * row["overhead"] for row in rows.values() if "overhead" in row)
        spent = f"{statistics.median(shares):.1f} ({shares[0]:.1f} to {shares[-1]:.1f})"
        seconds = statistics.median(row["seconds"] for row in rows.values() if "seconds" in row)
        gap = max(row["gap"] for row in rows.values() if row.get("same_score"))
        spent = [spent, f"{1000 * seconds:.0f}", f"{50 * seconds:.1f}"]
        lines.append([backend, str(len(rows)), *map(str, counts), f"{gap:.0e}", *spent])
        for name, row in rows.items():
            missed = [what for what in ("attaches", "same_score", "direction") if not row.get(what)]
            if missed:
                notes.append(f"- {backend}, `{name}`: {row.get('error') or 'not ' + ', '.join(missed)}")
    header = ["backend", "forms", "attach", "score = predict", "direction right", "largest difference"]
    header += ["monitor's calls, % of the epoch: median (range)", "milliseconds", "2 % of an epoch of … s"]
    return "\n\n".join([table(header, lines), *(["\n".join(notes)] if notes else []), footnote(found)])


def faults(found):
    from planted import pages

    return pages.faults(found, table) + "\n\n" + footnote(found)


def sensitivity(found):
    from planted import pages

    return pages.sensitivity(found, table) + "\n\n" + footnote(found)


def spread(shares):
    """Two cells: mean ± sample standard deviation over the seeds in percent, and the values of all seeds."""
    percents = [100 * share for share in shares]
    deviation = f" ± {statistics.stdev(percents):.2f}" if len(percents) > 1 else ""
    return [f"{statistics.mean(percents):.2f}{deviation}", ", ".join(f"{percent:.2f}" for percent in percents)]


def mnist(found):
    """Accuracy of the sides that were measured, also of each side with the other's kind of threshold."""
    sides = {
        "balanced": ("the package, with batches of all digits", "balanced"),
        "keras_io": ("keras.io's example, at 0.5", "keras_io"),
        "package": ("the package, at the calibrated threshold", "package"),
        "keras_io, calibrated": ("keras.io's network, calibrated on its validation pairs", None),
        "package, at 0.5": ("the package's network, at 0.5", None),
    }
    lines = []
    for key, (name, side) in sides.items():
        if key not in found["rows"][0]["accuracy"]:
            continue
        cells = spread([row["accuracy"][key] for row in found["rows"]])
        lines.append([name, *cells, str(found["lines"][side]) if side else ""])
    header = ["decision", "test accuracy, %", "by seed, %", "lines of code"]
    return table(header, lines) + "\n\n" + footnote(found)


PUBLISHED = {"one-shot": ["92.0", "95.2", "95.5"], "within": ["93.42", "", ""], "cross": ["93.42", "", ""]}


def omniglot(found):
    """Accuracy on test trials and pairs, then on those of validation, with published values beside them."""
    names = {
        "one-shot": "one-shot, 20-way, Lake's 20 runs",
        "within": "verification, within an alphabet",
        "cross": "verification, across two",
    }
    rows, lines, together = found["rows"], [], found.get("together")
    views = [key for key in rows[0] if key.endswith("views")]
    names |= {f"{key}, relative": f"{name}, scores relative to training characters" for key, name in names.items()}
    for key, name in [*names.items(), *((f"val {key}", f"{name}: validation") for key, name in names.items())]:
        if key not in rows[0][views[0]]:
            continue
        cells = [cell for view in views for cell in spread([row[view][key] for row in rows])]
        cells += [f"{100 * together[key]:.2f}"] if together else []
        name = name.replace("Lake's 20 runs: validation", "16 validation runs")
        lines.append([name, *cells, *PUBLISHED.get(key, [""] * 3)])
    header = ["accuracy, %", *(cell for view in views for cell in (view.replace("1 views", "1 view"), "by seed"))]
    header += ["together"] * bool(together) + ["Koch", "HBPL", "humans"]
    each = [
        f"seed {row['seed']} {row['steps']:,} steps in {row['processor'] / 60:.1f} processor minutes, "
        f"{row['seconds'] / 60:.1f} on the wall"
        for row in rows
    ]
    about = f"{rows[0]['parameters']:,} parameters, {rows[0]['backend']}; {'; '.join(each)}."
    return "\n\n".join([table(header, lines), about, footnote(found)])


def tuning(found):
    lines = []
    for backend, row in found["rows"].items():
        ours, peer, band = row["ours"], row["scikit-learn"], row["hyperband"]
        standing = sorted(range(len(ours["eer"])), key=lambda at: ours["eer"][at])
        ranks = [
            1 + standing.index(ours["points"].index({name: side["best"][name] for name in ours["best"]}))
            for side in (peer, band)
        ]
        epochs = row["points"] * row["epochs"]
        lines.append(
            [
                backend,
                *(point(side, list(ours["best"])) for side in (ours, peer, band)),
                " and ".join(map(str, ranks)),
                f"{ours['seconds']:.0f}",
                f"{ours['measuring']:.0f}",
                f"{peer['seconds']:.0f}",
                f"{ours['seconds'] / peer['seconds']:.2f}",
                f"{band['epochs']} of {epochs}",
            ]
        )
    header = ["backend", "our best: margin, dim, rate", "scikit-learn's", "Hyperband's", "their ranks in ours"]
    header += [
        "ours, s",
        "of which measuring each epoch",
        "scikit-learn, s",
        "ours ÷ scikit-learn",
        "Hyperband's epochs, of the grid's on one fold",
    ]
    return table(header, lines) + "\n\n" + footnote(found)


def point(side, names):
    """The best point of a side, as its values in the order of `names`."""
    return ", ".join(f"{side['best'][name]:g}" for name in names)


def oracle(found):
    """For each space and peer: the epochs until the peer's best EER is reached, and in relation to the peer's."""
    by = {(row["space"], row["seed"], row["kind"]): row["trace"] for row in found["rows"]}
    spaces, seeds, kinds = (list(dict.fromkeys(key[at] for key in by)) for at in range(3))
    lines = []
    for space in spaces:
        for peer in [kind for kind in kinds if kind != "DiagnosisOracle"]:
            sides = [[by.get((space, seed, kind)) for kind in (peer, "DiagnosisOracle")] for seed in seeds]
            if pairs := [side for side in sides if all(side)]:
                lines.append([space, peer, *against(pairs)])
    header = [
        "space",
        "search",
        "its best EER",
        "its epochs",
        "until its best",
        "DiagnosisOracle: epochs until that EER",
    ]
    header += ["÷ its epochs", "÷ those until its best", "seeds with at most half of its epochs", "best EER after half"]
    return table(header, lines) + "\n\n" + footnote(found)


def against(pairs):
    """The cells of a peer: medians over the seeds of pairs `(its trace, ours)` of EERs an epoch; None is NaN."""
    found = []
    for peer, own in pairs:
        peer, own = ([1.0 if value is None else value for value in trace] for trace in (peer, own))
        best, count = min(peer), len(peer)
        reached = next((epoch for epoch, value in enumerate(own, 1) if value <= best), float("inf"))
        until = 1 + peer.index(best)
        found.append((best, count, until, reached, reached / count, reached / until, min(own[: count // 2])))
    best, count, until, reached, share, of_best, after = map(statistics.median, zip(*found, strict=True))
    halves = sum(one[4] <= 0.5 for one in found)
    numbers = [f"{best:.3f}", f"{count:.0f}", f"{until:.0f}", *map(or_never, (reached, share, of_best))]
    return [*numbers, f"{halves} of {len(found)}", f"{after:.3f}"]


def or_never(number):
    """A number of epochs, or a ratio of two, as text."""
    if number == float("inf"):
        return "not reached"
    return f"{number:.2f}" if number != round(number) else f"{number:.0f}"


def scale(found):
    return sections(found["rows"], table) + "\n\n" + footnote(found)


TABLES = {
    "scale": scale,
    "losses": losses,
    "losses_gpu": losses,
    "towers": towers,
    "importing": importing,
    "data": data,
    "resume": resume,
    "soak": soak,
    "verification": verification,
    "callbacks": callbacks,
    "attach": attach,
    "faults_test": faults,
    "sensitivity": sensitivity,
    "mnist": mnist,
    "mnist_balanced": mnist,
    "omniglot": omniglot,
    "omniglot_long": omniglot,
    "tuning": tuning,
    "oracle": oracle,
}


def rendered(page):
    """Returns `page` with each table filled from the results. A table without results says so."""

    def fill(match):
        name = match.group(1)
        path = HERE / "results" / f"{name}.json"
        body = TABLES[name](json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "Not measured yet."
        return f"<!-- table: {name} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main():
    path = HERE / "README.md"
    page = path.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(rendered(page) != page)
    path.write_text(rendered(page), encoding="utf-8")


if __name__ == "__main__":
    main()
