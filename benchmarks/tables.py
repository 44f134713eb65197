"""Writes the tables in `benchmarks/README.md` from `benchmarks/results/*.json`, between their markers.

python benchmarks/tables.py            # after a benchmark
python benchmarks/tables.py --check    # exits with 1 if the page does not show what was found
"""

import json
import re
import sys
from pathlib import Path

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
    where = f"{about['cores']} cores of {about['processor']}"
    return f"`{found['command']}`, {about['date']}, {where}, Python {about['python']}, {versions}."


def losses(found):
    """One table for each batch size: our milliseconds by backend, then ratios to the floor and to the peers."""
    backends = list(found["rows"])
    parts = []
    for batch in sorted({row["batch"] for rows in found["rows"].values() for row in rows}):
        by_loss = {}
        for backend, rows in found["rows"].items():
            for row in rows:
                if row["batch"] == batch:
                    by_loss.setdefault(row["loss"], {})[backend] = row
        lines = [losses_row(name, rows, backends) for name, rows in by_loss.items()]
        header = ["loss", *(f"{backend}, ms" for backend in backends), "× floor", "memory, MiB"]
        header += ["PML, ms", "PML ÷ ours", "TFA, ms", "TFA ÷ ours"]
        parts.append(f"**{batch:,} rows**\n\n{table(header, lines)}")
    return "\n\n".join([*parts, footnote(found)])


def losses_row(name, rows, backends):
    times = [milliseconds(rows[backend]["seconds"]) if backend in rows else "" for backend in backends]
    floor = min(row["seconds"] / row["floor"] for row in rows.values())
    memory = [row["memory"] / 2**20 for row in rows.values() if row["memory"] is not None]
    cells = [name, *times, f"{floor:.1f}", f"{min(memory):,.0f}–{max(memory):,.0f}" if memory else ""]
    for peer, backend in (("PML", "torch"), ("TFA", "tensorflow")):
        found = rows[backend]["peers"].get(peer) if backend in rows else None
        timed = isinstance(found, float)
        cells += [
            milliseconds(found) if timed else found or "",
            ratio(found, rows[backend]["seconds"]) if timed else "",
        ]
    return cells


def towers(found):
    lines = []
    for backend, rows in found["rows"].items():
        for row in rows:
            seconds = row["seconds"]
            times = [f"{1e3 * seconds[name]:.2f}" for name in ("wrapper", "by hand", "keras.io")]
            own = seconds["wrapper"]
            ratios = [f"{own / seconds['by hand']:.3f}", f"{seconds['keras.io'] / own:.2f}×"]
            lines.append([backend, str(row["batch"]), *times, *ratios])
    header = [
        "backend",
        "pairs a step",
        "wrapper, ms",
        "by hand, ms",
        "keras.io, ms",
        "wrapper ÷ by hand",
        "keras.io ÷ wrapper",
    ]
    return table(header, lines) + "\n\n" + footnote(found)


TABLES = {"losses": losses, "losses_gpu": losses, "towers": towers}


def rendered(page):
    """The page with each table as the results have it; a table without results stays empty."""

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
