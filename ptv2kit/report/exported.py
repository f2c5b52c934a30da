"""Tables of a report for other programs: CSV with full numbers, and LaTeX with booktabs."""

from __future__ import annotations

import csv
import io

from ptv2kit.report.cells import MINUS, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MINUS: r"$-$",
    "…": r"\ldots{}",
}


def to_csv(table: Table) -> str:
    """A header and rows as a report shows them, with a column of the full number beside each that was rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    exact = [index for index, (_, _, numeric) in enumerate(table.columns) if numeric and any(_rounded(table, index))]
    titles = [title for _, title, _ in table.columns]
    writer.writerow([*titles, *(f"{titles[index]} (exact)" for index in exact)])
    for row in table.rows:
        texts = [cell.text.replace(MINUS, "-") for cell in row.cells]
        writer.writerow(
            [*texts, *("" if (value := row.cells[index].value) is None else repr(value) for index in exact)]
        )
    return out.getvalue()


def _rounded(table: Table, index: int) -> list[bool]:
    """For each row whether the text of a column says less than the number behind it."""
    found: list[bool] = []
    for row in table.rows:
        cell = row.cells[index]
        found.append(cell.value is not None and cell.text.replace(MINUS, "-") != repr(cell.value))
    return found


def to_latex(table: Table) -> str:
    """A `tabular` with booktabs' rules; notes of cells are left out."""
    form = "".join("r" if numeric else "l" for _, _, numeric in table.columns)
    head = " & ".join(_latex(title) for _, title, _ in table.columns)
    rows = [" & ".join(_latex(cell.text) for cell in row.cells) + r" \\" for row in table.rows]
    lines = [
        f"% {table.title}. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex(shown: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(shown.split()))
