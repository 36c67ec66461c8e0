"""Cells on disk -> what they say: a summary for machines, RESULTS.md, and one HTML page that holds everything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from twofold.errors import InputError
from twofold.tables.cell import lacks
from twofold.tables.runner import cell_path, read, write
from twofold.tables.statistics import Best, Paired, Summary, against, best, summary
from twofold.tables.table import SCALES, Book, Column, Row, Table

MARK = "<!-- rendered by: twofold table --render -->"
SIGNS = {"ahead": "▲", "behind": "▼", "level": "=", "unlike": "≠", None: ""}
WORDS = {
    "smoke": "Smoke scale: a few steps, to see that it runs. These are not results.",
    "cpu": "CPU scale: minutes a cell, not the paper's budget.",
    "paper": "The paper's scale.",
}
LEGEND = (
    "Mean ± standard deviation over seeds, which are the units of all tests; the split of the data is the same for all "
    "seeds. Where a paper printed a number, it stands after the slash, with ▲ where our 95 % interval (Student's t) "
    "lies on its better side, ▼ on its worse side, = where it holds the printed value; one seed gets no sign, and ≠ "
    "says that the two measure different things (the table's text says what). Each sign is one test, not corrected for "
    "their number: where nothing differs, one in twenty is wrong. **Bold**: better than every other method "
    "of its block (controls and upper bounds don't compete), each by a paired t-test over shared seeds, at 5 % after "
    "Holm's correction. ↑ and ↓ say which side is better. Hours are those of the cells' processes, added up: "
    "where N ran at a time, divide by N."
)
ELSEWHERE = (
    "Intervals, tests and each row's configuration are in `results/index.html`, which `twofold table --render` writes."
)


@dataclass(frozen=True)
class Value:
    """A column of a row: ours over the seeds, beside the printed one."""

    column: Column
    seeds: Mapping[int, float]
    printed: float | None = None
    ours: Summary | None = None
    standing: str | None = None  # ahead, level, behind; unlike
    cells: int = 0  # some may lack it
    best: bool = False
    from_best: tuple[str, Paired, float] | None = None  # the best row, ours less its, corrected p

    @property
    def text(self) -> str:
        if self.ours is None:
            return "-"
        spread = "" if self.ours.sd is None else f" ± {self.column.show(self.ours.sd)}"
        fewer = f" (n = {self.ours.n})" if self.ours.n < self.cells else ""
        return f"{self.column.show(self.ours.mean)}{spread}{fewer}"

    @property
    def beside(self) -> str:
        """The printed value and how ours stands to it."""
        if self.printed is None:
            return ""
        return f"/ {self.column.show_printed(self.printed)} {SIGNS[self.standing]}".rstrip()

    @property
    def told(self) -> str:
        """In words, for the page: the interval and the test."""
        parts = []
        if self.ours is not None and self.ours.low is not None and self.ours.high is not None:
            low, high = self.column.show(self.ours.low), self.column.show(self.ours.high)
            parts.append(f"95 % interval of the mean [{low}, {high}], {self.ours.n} seeds")
        elif self.ours is not None:
            parts.append("one seed: no interval")
        if self.standing == "unlike":
            parts.append("not to be compared with the printed value")
        elif self.standing is not None and self.printed is not None:
            parts.append(
                f"{self.standing} of the printed {self.column.show_printed(self.printed)}".replace(
                    "level of", "level with"
                )
            )
        if self.best:
            parts.append("better than every other method here, by paired tests")
        elif self.from_best is not None:
            name, test, p = self.from_best
            difference, low, high = (self.column.show(v) for v in (test.difference, test.low, test.high))
            parts.append(
                f"{difference} [{low}, {high}] from the best mean, {name}: paired t-test, {test.n} seeds, p = {p:.3g} "
                "after Holm's correction"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class Line:
    """A row with its values, or the reason why it has none."""

    row: Row
    values: Sequence[Value]
    cells: Sequence[Mapping[str, Any]]  # the JSON files, by seed
    paths: Sequence[Path]
    why: str = ""  # there are no values, or fewer than there could be

    @property
    def seeds(self) -> list[int]:
        return [cell["seed"] for cell in self.cells]

    @property
    def key(self) -> str:
        return self.row.slug


@dataclass(frozen=True)
class Section:
    """A table at one scale."""

    book: Book
    table: Table
    scale: str
    blocks: Mapping[str, Sequence[Line]]
    recipes: Sequence[str] = ()

    @property
    def key(self) -> str:
        return f"{self.book.name}-{self.table.name}-{self.scale}"

    @cached_property
    def printed(self) -> set[str]:
        """Columns that have printed values."""
        return {name for row in self.table.rows for name in row.printed}

    @property
    def lines(self) -> list[Line]:
        return [line for lines in self.blocks.values() for line in lines]


def sections(book: Book, out: Path, data_dir: Path | None = None) -> list[Section]:
    """The tables of a book at each scale that has cells, the smoke scale only where there is no other; tables without
    cells stand beside those that have some, at the book's first such scale."""
    scales = {
        table.name: [s for s in SCALES if s in table.scales and any((out / book.name / s / table.name).glob("*.json"))]
        for table in book.tables
    }
    shown = {name: [s for s in its if s != "smoke"] or its for name, its in scales.items()}
    first = next((its[0] for its in shown.values() if its), None)
    found = []
    for table in book.tables:
        for scale in shown[table.name] or [s for s in table.scales if s == first]:
            found.append(_section(book, table, scale, out, data_dir))
    return found


def _section(book: Book, table: Table, scale: str, out: Path, data_dir: Path | None) -> Section:
    blocks: dict[str, list[tuple[Row, list, list, str]]] = {}
    for row in table.rows:
        cells, paths, why = _cells(book, table, row, scale, out, data_dir)
        blocks.setdefault(row.block, []).append((row, cells, paths, why))
    done = {block: _block(table, rows, scale != "smoke") for block, rows in blocks.items()}
    recipes = dict.fromkeys(row.recipe for row in table.rows if row.recipe)
    return Section(book, table, scale, done, tuple(recipes))


def _cells(book: Book, table: Table, row: Row, scale: str, out: Path, data_dir: Path | None):
    folder = cell_path(out, book, scale, table, row, 0).parent
    found = []
    for path in folder.glob(f"{row.slug}.*.json"):
        if path.name.removeprefix(f"{row.slug}.").removesuffix(".json").isdecimal() and (cell := read(path)):
            found.append((cell, path))
    found.sort(key=lambda pair: pair[0]["seed"])
    identity = table.identity(row, scale)
    good = [(cell, path) for cell, path in found if "error" not in cell and cell["protocol"] == identity]
    failed = [cell["error"] for cell, _ in found if "error" in cell]
    old = len(found) - len(good) - len(failed)
    parts = [f"{len(failed)} of {len(found)} seeds failed: {failed[0]}"] if failed else []
    parts += [f"{old} cell{'s' * (old > 1)} of an earlier protocol left out"] if old else []
    if not found:
        missing = lacks(table, row, scale, data_dir)
        parts = [f"needs {missing}" if missing else "not run"]
    return [cell for cell, _ in good], [path for _, path in good], "; ".join(parts)


def _block(table: Table, rows: Sequence[tuple[Row, list, list, str]], test: bool) -> list[Line]:
    values: dict[str, list[Value]] = {row.slug: [] for row, *_ in rows}
    names = {row.slug: row.name for row, *_ in rows}
    for column in table.columns:
        by = {
            row.slug: {c["seed"]: v for c in cells if (v := c["values"].get(column.name)) is not None}
            for row, cells, *_ in rows
        }
        competing = {row.slug: by[row.slug] for row, *_ in rows if row.control is None and row.competes}
        first = best(competing, column.better) if column.better and test else Best()
        means = {name: column.show(summary(list(v.values())).mean) for name, v in competing.items() if v}
        won = first.won and list(means.values()).count(means[str(first.name)]) == 1  # as far as the page shows
        for row, cells, *_ in rows:
            seeds, printed = by[row.slug], row.printed.get(column.name)
            ours = summary(list(seeds.values())) if seeds else None
            standing = None
            if test and ours and printed is not None:
                standing = against(ours, printed, column.better) if column.comparable else "unlike"
            found = first.tests.get(row.slug)
            from_best = (names[first.name], *found) if found and first.name is not None else None
            bold = won and row.slug == first.name
            made = Value(column, seeds, printed, ours, standing, len(cells), bold, from_best)
            values[row.slug].append(made)
    return [Line(row, values[row.slug], cells, paths, why) for row, cells, paths, why in rows]


# -- for machines ------------------------------------------------------------------------------------------------------


def summarise(section: Section, out: Path) -> Path:
    """results/NAME/TABLE.SCALE.json: each row's values, spreads, seeds, protocol, versions, commit, device, seconds."""
    rows = []
    for line in section.lines:
        about: dict[str, Any] = {"protocol": line.cells[0]["protocol"] if line.cells else None}
        for key in ("versions", "commit", "device", "machine", "gpu"):  # one, or one a seed
            each = [cell.get(key) for cell in line.cells]
            about[key] = each if any(value != each[0] for value in each) else next(iter(each), None)
        columns = {}
        for value in line.values:
            if value.ours is not None or value.printed is not None:
                ours = {} if value.ours is None else asdict(value.ours) | {"seeds": dict(value.seeds)}
                other = {"printed": value.printed, "standing": value.standing, "best": value.best}
                if value.from_best is not None:
                    name, test, p = value.from_best
                    other["from best"] = asdict(test) | {"row": name, "p, corrected": p}
                columns[value.column.name] = ours | {k: v for k, v in other.items() if v is not None}
        seconds = [cell["total_seconds"] for cell in line.cells]
        rows.append({"block": line.row.block, "row": line.row.name, "note": line.why, "values": columns, **about})
        rows[-1] |= {"seeds": line.seeds, "seconds": seconds}
    about = {"table": section.table.name, "title": section.table.title, "source": section.table.source}
    path = out / section.book.name / f"{section.table.name}.{section.scale}.json"
    write(path, json.dumps(about | {"scale": section.scale, "rows": rows}, indent=1))
    return path


# -- for people --------------------------------------------------------------------------------------------------------


def markdown(section: Section, base: Path) -> str:
    """The table as Markdown for a page in the folder `base`; a row's name leads to its first cell's configuration."""
    table, lines = section.table, [f"### {section.table.title}", ""]
    lines += [f"{table.source}. {WORDS[section.scale]} {' '.join(table.about.split())}".rstrip(), ""]
    head = ["", *map(_head(section), table.columns), "seeds"]
    for block, rows in section.blocks.items():
        lines += [f"**{block}**", ""] if block else []
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for line in rows:
            name = line.row.name + (f" ({line.row.note})" if line.row.note else "")
            if line.paths:
                name = f"[{name}]({Path(os.path.relpath(line.paths[0], base)).as_posix()})"
            cells = [_shown(value, value.column.name in section.printed) for value in line.values]
            if not line.cells:
                cells[0] = f"{cells[0]} _{line.why}_" if cells[0] != "-" else f"_{line.why}_"
            lines.append(f"| {' | '.join(_cell(text) for text in (name, *cells, str(len(line.cells))))} |")
        notes = [f"{line.row.name}: {line.why}." for line in rows if line.cells and line.why]
        lines += ["", *notes] if notes else []
        lines.append("")
    lines += [f"How to make the local copies: {' '.join(section.recipes)}", ""] if section.recipes else []
    return "\n".join(lines)


def _head(section: Section):
    def head(column: Column) -> str:
        arrow = {"low": " ↓", "high": " ↑", None: ""}[column.better]
        return f"{column.name}{arrow}{', ours / printed' if column.name in section.printed else ''}"

    return head


def _shown(value: Value, beside: bool) -> str:
    ours = f"**{value.text}**" if value.best else value.text
    return f"{ours} {value.beside}".rstrip() if beside else ours


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def render(books: Sequence[Book], out: Path, page: Path, data_dir: Path | None = None) -> tuple[Path, Path]:
    """Write summaries, the Markdown `page` and `out`/index.html from all cells in `out`; returns the two pages.

    What stands in `out`/NAME/notes.md follows NAME's tables; `out`/notes.md comes last.
    """
    refuse(page)
    found = [(book, made) for book in books if (made := sections(book, out, data_dir))]
    text = [MARK, "# Results", "", f"{LEGEND} {ELSEWHERE}", ""]
    last = (out / "notes.md").read_text() if (out / "notes.md").is_file() else ""
    notes = {book.name: _notes(out, book) for book, _ in found}
    all_of_them = [section for _, made in found for section in made]
    text += [f"In all {took(all_of_them)}{dirty(all_of_them)}.", ""]
    text += ["## Beside the printed values", "", card, ""] if (card := score(all_of_them)) else []
    for book, made in found:
        text += [f"## {book.name}: {book.about.rstrip('.')}", "", f"`twofold table {book.name}`: {took(made)}.", ""]
        for section in made:
            summarise(section, out)
            text.append(markdown(section, page.parent))
        text += [notes[book.name], ""] if notes[book.name] else []
    write(page, "\n".join([*text, last.strip()]).rstrip() + "\n")
    template = Environment(
        loader=PackageLoader("twofold"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("tables.html.j2")
    html = out / "index.html"
    texts = {"legend": LEGEND, "card": card, "notes": notes, "last": last, "words": WORDS}
    write(html, template.render(found=found, took=took, dump=_dump, html=_html, inline=_inline, **texts))
    return page, html


def took(found: Sequence[Section]) -> str:
    """How many cells these are, and their processes' wall time."""
    seconds = [cell["total_seconds"] for section in found for line in section.lines for cell in line.cells]
    if not seconds:
        return "no cells yet"
    half, most = median(seconds) / 60, max(seconds) / 60
    whole = f"{len(seconds):,} cells, {sum(seconds) / 3600:.1f} hours"
    return f"{whole}; a cell {half:.1f} minutes (median), {most:.1f} at most"


def dirty(found: Sequence[Section]) -> str:
    """How many cells say that the code which they ran wasn't their commit's."""
    commits = [str(cell.get("commit")) for section in found for line in section.lines for cell in line.cells]
    count = sum(commit.endswith("-dirty") for commit in commits)
    return f"; {count} of them from a working tree with changes" if count else ""


def score(found: Sequence[Section]) -> str:
    """Of each block that has printed values and cells: how many of ours are ahead, level and behind, and which are."""
    head, lines = ["| | ▲ | = | ▼ | behind |", "|---|---|---|---|---|"], []
    for section in found:
        for block, rows in section.blocks.items():
            told = [(row.row.name, v.column.name, v.standing) for row in rows for v in row.values if v.standing]
            counts = [sum(how == one for *_, how in told) for one in ("ahead", "level", "behind")]
            behind: dict[str, list[str]] = {}
            for row, column, how in told:
                if how == "behind":
                    behind.setdefault(row, []).append(column)
            which = "; ".join(f"{row}: {', '.join(columns)}" for row, columns in behind.items())
            name = f"{section.book.name} {section.table.name}{f', {block}' if block else ''}"
            name += f" ({section.scale})" if section.scale != "cpu" else ""
            if any(counts):
                lines.append(f"| {_cell(name)} | {' | '.join(map(str, counts))} | {_cell(which)} |")
            elif told:
                lines.append(f"| {_cell(name)} | | | | measures something else (≠) |")
    where = "What was tried where we are behind stands at the end of this page."
    return "\n".join([*head, *lines, "", where]) if lines else ""


def refuse(page: Path) -> None:
    """Don't write over a page that isn't ours."""
    if page.is_file() and not page.read_text(errors="replace").lstrip().startswith((MARK, "# Results")):
        raise InputError(f"page: {page} is not a page of results; choose another by --page")


def _notes(out: Path, book: Book) -> str:
    path = out / book.name / "notes.md"
    return path.read_text().strip() if path.is_file() else ""


def _html(text: str) -> Markup:
    """Markdown as HTML; tags in it stay text."""
    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def _inline(text: str) -> Markup:
    """The same, within a paragraph."""
    return Markup(MarkdownIt("commonmark", {"html": False}).renderInline(" ".join(text.split())))


def _dump(line: Line) -> str:
    """A row's intervals and tests, configuration, and its seeds' values."""
    first = line.cells[0]
    told = "".join(f"{v.column.name}: {v.text}; {v.told}\n" for v in line.values if v.ours is not None)
    own = {"protocol": first["protocol"], "versions": first["versions"], "data": first.get("data")}
    each = [
        {key: c[key] for key in ("seed", "commit", "device", "values")} | {"seconds": round(c["total_seconds"], 1)}
        for c in line.cells
    ]
    return told + json.dumps(own, indent=1) + "\n" + "\n".join(json.dumps(seed) for seed in each)
