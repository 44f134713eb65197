"""Makes the pages docs/examples/*.md and their pictures by running the examples.

python examples/build.py                    # all pages, each example in a process of its own
python examples/build.py loss_falls onnx    # these

An example is a Python script in jupytext's percent format: cells begin with `# %%` or `# %% [markdown]`. So each runs
as `python examples/NAME.py`, and `jupytext --to ipynb examples/NAME.py` makes a notebook of it. A page has the text,
the code, what the code printed, and its figures. The label of a figure, `plt.figure("What is seen")`, describes it.
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
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())


def main(names):
    if len(names) == 1:
        write(names[0])
    for name in names if len(names) > 1 else ():
        print(name, flush=True)
        subprocess.run([sys.executable, __file__, name], check=True)


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


def write(name):
    """Runs the example `name` in this process, and writes its page and pictures."""
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
    parts[1:1] = [f"*Run it: `python examples/{name}.py`. Make a notebook: `jupytext --to ipynb examples/{name}.py`.*"]
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
