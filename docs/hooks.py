"""What `mkdocs build` does beside mkdocs.yml: pages from outside of docs/, links, limits, examples in docstrings.

README.md is the home page, and the other files in `OUTSIDE` are pages as well. Their links and the links to them are
those of the repository, so that they work in an editor and on a code host too; here they are turned into links of the
site. A link to another file of the repository, such as a script in benchmarks/, becomes the file's name.

The page of a cause ends with the limits that decide about it, and the page of the report with what the names in the
evidence mean, both read from the tables of the diagnosis. Nothing of the package is imported, so the site can be built
where Keras is missing.
"""

import ast
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/README.md": "project/benchmarks.md",
}
LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
IMAGE = re.compile(r"(!\[[^\[\]]*\]\()([^)\s]+)(\))")
NAMES = re.compile(r"^\s+\*{0,2}\w+(?:, \*{0,2}\w+)+(?=: )")
QUOTED = re.compile(r"^(\s*(?:[\w*,\s]+: )?)> ")
CONTRACT = re.compile(r"^Contract:.*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'
FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)


def on_files(files, config):
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    name = page.file.src_uri
    if name.startswith("causes/") and name != "causes/index.md":
        markdown += limits_of(Path(name).stem)
    if name == "guides/report.md":
        markdown += evidence()
    source = next((outside for outside, target in OUTSIDE.items() if target == name), f"docs/{name}")
    return outside_of_code(markdown, lambda text: relinked(text, source, name))


def on_post_page(output, page, config):
    """Names the search for screen readers, which the theme does not."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def limits_of(cause):
    """The section with the limits of a cause: name, value, unit and origin, as diagnosis/limits.py has them."""
    rows = [
        f"| {name.lower()} | {value:g} | {unit} | {origin} |"
        for name, (value, unit, origin, users) in limits().items()
        if f"causes.{cause}" in users.split()
    ]
    if not rows:
        return ""
    head = ["| limit | value | unit | where it comes from |", "| --- | ---: | --- | --- |"]
    tuned = (
        "*Tuned* limits were chosen on one half of [the fault benchmark](../../benchmarks/README.md), and fixed before"
    )
    text = f"The diagnosis decides by these numbers. {tuned} the other half was run."
    return "\n".join(["", "## Limits", "", text, "", *head, *rows, ""])


def evidence():
    """The table of the names of evidence, as diagnosis/meanings.py has them."""
    source = (ROOT / "keras_siamese" / "diagnosis" / "meanings.py").read_text(encoding="utf-8")
    (table,) = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign))
    rows = [f"| {name.replace('_', ' ')} | {meaning} |" for name, meaning in ast.literal_eval(table).items()]
    return "\n".join(["", "| name | meaning |", "| --- | --- |", *rows, ""])


def limits():
    """The arguments of each `Limit` by its name, without those that only say how strong a finding is."""
    source = (ROOT / "keras_siamese" / "diagnosis" / "limits.py").read_text(encoding="utf-8")
    parts = [part for part in re.split(r"^# --- ", source, flags=re.MULTILINE) if not part.startswith("strength")]
    nodes = [node for part in parts[1:] for node in ast.parse(f"# {part}").body if isinstance(node, ast.Assign)]
    made = [
        node for node in nodes if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "Limit"
    ]
    return {node.targets[0].id: [ast.literal_eval(one) for one in node.value.args] for node in made}


def outside_of_code(markdown, change):
    """`markdown` with `change` made in all text but the fenced blocks."""
    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def relinked(text, source, name):
    """`text` of the file `source`, the page `name` of the site, with the links of that page."""

    def link(match):
        target = where(match["target"], source, name)
        return (
            match[0]
            if target == ""
            else match["text"]
            if target is None
            else (f"[{match['text']}]({target}{match['anchor'] or ''})")
        )

    def image(match):
        return f"{match[1]}{where(match[2], source, name) or match[2]}{match[3]}"

    return IMAGE.sub(image, LINK.sub(link, text))


def where(target, source, name):
    """What a link of `source` to `target` is on the page `name`: None for a file that is not in the site, and an empty
    string where nothing changes."""
    if "://" in target:
        return ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in OUTSIDE:
        place = OUTSIDE[path]
    elif path.startswith("docs/"):
        place = path.removeprefix("docs/")
    else:
        return None
    return posixpath.relpath(place, posixpath.dirname(name) or ".")


def joined(match):
    """The names before a description, such as "low, high", as one: griffe would read the second one as a type."""
    return match[0].replace(", ", ",\u00a0")


class Docstrings(griffe.Extension):
    """Puts the examples of docstrings, lines from `>>>` to the next blank line, into fenced blocks.

    It leaves out what a module's docstring says to developers: the paragraph that begins with "Contract:".
    """

    def on_object(self, *, obj, **kwargs):
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
            if obj.is_module:
                obj.docstring.value = CONTRACT.sub("", obj.docstring.value)


def fenced(docstring):
    """`docstring` with its examples in fenced blocks; "scale: > 0" is no quotation."""
    lines, inside, margin = [], False, ""
    for line in [*docstring.splitlines(), ""]:
        if not inside and line.lstrip().startswith(">>>"):
            inside, margin = True, line[: len(line) - len(line.lstrip())]
            lines += ["", f"{margin}```pycon"] if lines and lines[-1] else [f"{margin}```pycon"]
        elif inside and not line.strip():
            inside = False
            lines.append(f"{margin}```")
        lines.append(line if inside else QUOTED.sub(r"\1\\> ", NAMES.sub(joined, line)))
    return "\n".join(lines[:-1])
