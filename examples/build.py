"""Makes the pages docs/examples/*.md, their pictures and the table in docs/examples.md by running the examples.

python examples/build.py                    # all pages, each example in a process of its own
python examples/build.py loss_falls onnx    # these

An example is a Python script in jupytext's percent format: cells begin with `# %%` or `# %% [markdown]`. So each runs
as `python examples/NAME.py`, and `jupytext --to ipynb examples/NAME.py` makes a notebook of it. A page has the text,
the code, what the code printed, and its figures. The label of a figure, `plt.figure("What is seen")`, describes it.
The last line that an example prints behind "Result: " stands at its head, with the processor time of the run: seconds
of all cores, with imports, which other programs on the machine change little. The table has both of all examples.
"""

import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGES = FOLDER.parent / "docs" / "examples"
INDEX = PAGES.with_suffix(".md")
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())
RESULT = re.compile(r"^Result: (.+)$", re.MULTILINE)
HEAD = re.compile(r"^\*Result: (.+)\. It took (\d+) s of processor time on (.+)\.\*$", re.MULTILINE)
ROW = re.compile(r"^(\| \[.+?\]\(examples/(\w+)\.md\) \| .+? \|).*$", re.MULTILINE)


def main(names):
    if len(names) == 1:
        write(names[0])
    for name in names if len(names) > 1 else ():
        print(name, flush=True)
        subprocess.run([sys.executable, __file__, name], check=True)
    INDEX.write_text(with_results(INDEX.read_text(encoding="utf-8")), encoding="utf-8")


def cells(source):
    """The cells of an example as `("markdown" or "python", text)`; a comment sign opens each line of Markdown."""
    head, *parts = CELL.split(source)
    if head.strip():
        raise ValueError(f"An example begins with a line '# %%', but this one begins with {head[:60]!r}")
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            lines = text.strip().splitlines()
            if stray := [line for line in lines if line != "#" and not line.startswith("# ")]:
                raise ValueError(f"A line of a Markdown cell begins with '# ', but not this one: {stray[0]!r}")
            found.append(("markdown", "\n".join(line[2:] for line in lines)))
        else:
            found.append(("python", text.strip()))
    return found


def digest(source):
    """What a page keeps of the source that it was made from."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def results(page):
    """The result of an example and the seconds of its run, as its `page` states them."""
    result, seconds, _ = HEAD.search(page).groups()
    return result, int(seconds)


def with_results(index):
    """The text of docs/examples.md, with the results and seconds that the pages state in the rows of its table."""

    def row(found):
        result, seconds = results((PAGES / f"{found[2]}.md").read_text(encoding="utf-8"))
        return f"{found[1]} {result} | {seconds} |"

    return ROW.sub(row, index)


def write(name):
    """Runs the example `name` in this process, and writes its page and pictures."""
    import keras
    import matplotlib

    matplotlib.use("agg")
    pictures = PAGES / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob(f"{name}_*.png"):
        old.unlink()
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    namespace, drawn, parts = {"__name__": "__main__"}, [], []
    os.chdir(tempfile.mkdtemp())  # for the files that an example writes
    for kind, text in cells(source):
        if kind == "markdown":
            parts.append(text)
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, f"<a cell of {name}>", "exec"), namespace)
        parts.append(f"```python\n{text}\n```")
        if shown := printed.getvalue().rstrip():
            parts.append(f"```\n{shown}\n```")
        for path, label in draw(pictures, name, len(drawn)):
            drawn.append(path)
            parts.append(f"![{label}](pictures/{path.name})")
    *_, result = RESULT.findall("\n".join(parts))
    seconds = round(sum(os.times()[:4]))  # of this process and its children, since they began
    backend = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[keras.backend.backend()]
    parts[1:1] = [
        f"*Result: {result}. It took {seconds} s of processor time on {backend}.*",
        f"*Run it: `python examples/{name}.py`. Make a notebook: `jupytext --to ipynb examples/{name}.py`.*",
    ]
    parts.append(f"<!-- made by examples/build.py from the source {digest(source)} -->\n")
    (PAGES / f"{name}.md").write_text("\n\n".join(parts), encoding="utf-8")


def draw(folder, name, count):
    """Saves the open figures and closes them; yields the file and the label of each."""
    from matplotlib import pyplot as plt

    for number in plt.get_fignums():
        figure = plt.figure(number)
        count += 1
        path = folder / f"{name}_{count}.png"
        figure.savefig(path, dpi=80, metadata={"Software": None})
        yield path, figure.get_label()
        plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
