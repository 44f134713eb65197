"""The tables of `results/scale.json` for `benchmarks/README.md`: one for each section that `scale.py` has measured.

sections(rows, table)               # Markdown; `table(header, lines)` writes one table
"""

import statistics


def sections(rows, table):
    """A table for each section, and what follows from the rate of one process for more embeddings."""
    by_section = {}
    for row in rows:
        by_section.setdefault(row["section"], []).append(row)
    parts = [f"**{SECTIONS[name][0]}**\n\n{table(*SECTIONS[name][1](own))}" for name, own in by_section.items()]
    if "pairs" in by_section:
        heading = "All pairs of more embeddings of 128 numbers, computed from the rate of one process"
        parts.append(f"**{heading}**\n\n{table(*at_that_rate(by_section['pairs']))}")
    return "\n\n".join(parts)


def cell(row, way, name, form):
    one = row.get(way, {})
    return form(one[name]) if name in one else "failed"


def gibibytes(size):
    return f"{size / 2**30:.2f}"


def two(value):
    return f"{value:.2f}"


def in_chunks(rows):
    ways = ("plain", "chunked")
    lines = [
        [
            f"{row['backend']}, {row['encoder']}",
            f"{row['batch']:,}",
            *(cell(row, way, "memory", gibibytes) for way in ways),
            *(cell(row, way, "seconds", two) for way in ways),
            *(cell(row, way, "loss", "{:.5f}".format) for way in ways),
        ]
        for row in rows
    ]
    header = ["backend, encoder", "rows", "plain, GiB", "chunked, GiB", "plain, s", "chunked, s", "plain: loss"]
    return [*header, "chunked: loss"], lines


def with_memory(rows):
    ways = [name for name, one in rows[0].items() if isinstance(one, dict)]
    lines = []
    for backend in dict.fromkeys(row["backend"] for row in rows):
        own = [row for row in rows if row["backend"] == backend]
        for way in ways:
            eers, nearest, seconds = ([row[way][name] for row in own] for name in ("eer", "nearest", "seconds"))
            spread = f"{min(eers):.4f} to {max(eers):.4f}"
            median = statistics.median
            figures = f"{median(eers):.4f}", spread, f"{median(nearest):.4f}", f"{median(seconds):.0f}"
            lines.append([f"{backend}, {way}", f"{len(own)}", *figures])
    return ["backend, way", "seeds", "EER, median", "EER", "nearest right, median", "training, s"], lines


def over_classes(rows):
    ways = [name for name, one in rows[0].items() if isinstance(one, dict)]
    lines = [
        [row["backend"], f"{row['classes']:,}"]
        + [cell(row, way, name, form) for way in ways for name, form in (("seconds", two), ("memory", gibibytes))]
        for row in rows
    ]
    return ["backend", "classes", *(f"{way}, {unit}" for way in ways for unit in ("s a step", "GiB"))], lines


def frozen(rows):
    lines = []
    for row in rows:
        taken = row["frozen"]
        ratios = [f"{taken['whole'] / taken[way]:.1f}×" for way in ("first", "again")]
        times = [f"{taken[way]:.2f}" for way in ("whole", "first", "again")]
        lines.append([row["backend"], f"{row['samples']:,}", *times, *ratios])
    header = ["backend", "samples", "in the model, s", "embedded first, s", "from the disk, s"]
    return [*header, "in the model ÷ first", "in the model ÷ from the disk"], lines


def of_files(rows):
    lines = []
    for row in rows:
        rates = row["pairs"]
        line = [f"{row['embeddings']:,}", *(f"{rates[way] / 1e6:.0f}" for way in ("whole", "one", "two"))]
        lines.append([*line, f"{rates['two'] / rates['one'] / 2:.2f}", f"{rates['one'] / rates['whole']:.2f}"])
    header = ["embeddings", "compare_embeddings, 10⁶ pairs/s", "one process", "two processes"]
    return [*header, "efficiency of two", "one process ÷ compare_embeddings"], lines


def at_that_rate(rows):
    """Time and traffic of all pairs of more embeddings: a task compares two ranges of rows, and reads both."""
    rate, span, width = rows[-1]["pairs"]["one"], 32_768, 4 * 128  # rows of a range, bytes of an embedding
    lines = []
    for count in (10**6, IFRT, 10**7, 10**8, 10**9):
        pairs, ranges = count * (count - 1) // 2, -(-count // span)
        read = ranges * (ranges + 1) // 2 * 2 * span * width
        days = pairs / rate / 86_400
        lines.append(
            [f"{count:,}", f"{pairs:.1e}", f"{days:,.2f}" if days < 10 else f"{days:,.0f}", f"{read / 2**40:,.2f}"]
        )
    return ["embeddings", "pairs", "days of one core", "read by workers, TiB"], lines


def searched(rows):
    forms = {"rate": "{:,.0f}", "exact": "{:.1f}", "faiss": "{:.1f}"}
    forms |= {"graph": "{:.1f}", "recall graph": "{:.3f}", "building graph": "{:.0f}"}
    forms |= {"cells": "{:.1f}", "recall cells": "{:.3f}", "building cells": "{:.0f}", "right": "{:.3f}"}
    lines = []
    for row in rows:
        found = row["gallery"]
        cells = [form.format(found[name]) if name in found else "" for name, form in forms.items()]
        lines.append([f"{row['enrolled']:,}", *cells, gibibytes(found["bytes"])])
    of_indexes = [
        f"{name}{what}" for name in ("HnswSq", "IvfSq") for what in (", ms a search", ": recall@10", ": built in s")
    ]
    header = ["enrolled", "enrolled a second", "exact, ms a search", "faiss in memory, ms", *of_indexes]
    return [*header, "nearest right, IvfSq", "on disk, GiB"], lines


def omniglot_in_chunks(rows):
    lines = []
    for way in ("batches of 16", "plain", "chunked"):
        found = [row[way] for row in rows]
        eers, nearest, seconds = ([one[name] for one in found] for name in ("eer", "nearest", "seconds"))
        cells = [f"{statistics.median(eers):.4f}", f"{min(eers):.4f} to {max(eers):.4f}"]
        cells += [f"{statistics.median(nearest):.4f}", gibibytes(max(one["memory"] for one in found))]
        lines.append([way, str(len(rows)), *cells, f"{statistics.median(seconds):.0f}"])
    return ["way", "seeds", "EER, median", "EER", "nearest right, median", "largest memory, GiB", "training, s"], lines


def on_devices(rows):
    lines, counts = [], ("1", "2", "4")
    for row in rows:
        cells = [f"{row[count]['loss']:.6f}" for count in counts]
        cells += [f"{row[count]['seconds']:.2f}" for count in counts]
        lines.append([f"{row['rows']:,}", *cells, *(gibibytes(row[count]["memory"]) for count in counts)])
    names = [f"{count} {what}" for what in ("process: loss", "process, s", "process, GiB") for count in counts]
    return ["rows", *(name.replace("process", "processes") if name[0] != "1" else name for name in names)], lines


def on_a_cluster(rows):
    lines = []
    for row in rows:
        found = row["cluster"]
        seconds = [f"{found[name]:.1f}" for name in ("undisturbed", "killed")]
        lines.append([f"{row['embeddings']:,}", f"{found['pairs']:.2e}", *seconds, "yes" if found["equal"] else "no"])
    return ["embeddings", "pairs", "undisturbed, s", "a worker killed, s", "same counts"], lines


IFRT = 1_624_305  # images of the largest published all-pairs test of faces, InsightFace's MR-ALL
SECTIONS = {
    "gallery": ("A gallery on disk", searched),
    "devices": ("One batch on several devices", on_devices),
    "cluster": ("All pairs on a Dask cluster of two workers", on_a_cluster),
    "cached": ("Steps of large batches", in_chunks),
    "memory": ("A memory of earlier batches", with_memory),
    "omniglot": ("Omniglot with large batches", omniglot_in_chunks),
    "classes": ("A million classes", over_classes),
    "frozen": ("A frozen encoder", frozen),
    "pairs": ("All pairs of files", of_files),
}
