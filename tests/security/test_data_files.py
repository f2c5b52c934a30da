"""Every reader of data, with files that are damaged or were never meant well."""

from __future__ import annotations

import gzip
import io
import json
from datetime import date
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.command import DEEP, QUICK, Ending, requires_message, run
from tests.security.generators import damaged

SPANS = "input: {words: tokens, max_length: 16}\nlabels: {scheme: iob2, column: tags, names: from_train}\n"
CLASSES = "input: {text: '{a}', max_length: 16}\nlabels: {scheme: classes, column: label, names: [no, yes]}\n"
SQUAD = (
    "input: {question: '{question}', context: '{context}', max_length: 32, stride: 8}\n"
    "labels: {scheme: start_end, column: answers, unanswerable: true}\n"
)
ROWS = [{"a": "ada met alan", "label": name} for name in ("no", "yes", "no")]
QUESTION = {
    "id": "q1",
    "question": "who?",
    "answers": [{"text": "ada", "answer_start": 0}],
    "is_impossible": False,
}
ARTICLES = {"data": [{"title": "t", "paragraphs": [{"context": "ada met alan", "qas": [QUESTION]}]}]}
GOLD = "#begin document (x); part 0\n{}\n\n#end document\n"
GOLD_LINE = "x 0 {0} {1} NN * {2} {3} - spk {4} {5} -"


def parquet(table: pyarrow.Table) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


SOURCES: dict[str, tuple[str, str, str, bytes]] = {
    "jsonl": ("rows.jsonl", "source: jsonl", CLASSES, "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "csv": ("rows.csv", "source: csv", CLASSES, b'a,label\n"ada, met",no\nalan,yes\n'),
    "tsv": ("rows.tsv", "source: tsv", CLASSES, b"a\tlabel\nada met\tno\nalan\tyes\n"),
    "parquet": ("rows.parquet", "source: parquet", CLASSES, parquet(pyarrow.Table.from_pylist(ROWS))),
    "squad": ("rows.json", "source: squad", SQUAD, json.dumps(ARTICLES).encode()),
    "conll": (
        "rows.conll",
        "source: conll, columns: {tokens: 0, tags: -1}",
        SPANS,
        b"ada NN B-PER\nmet VB O\n\nrome NN O\n",
    ),
    "conll04": (
        "rows.corp",
        "source: conll04, layout: corp",
        SPANS,
        b"0\tPeop\t0\tO\tNNP/NNP\tAda/L\tO\tO\tO\n0\tO\t1\tO\tVB\tmet\tO\tO\tO\n\n0\t1\tKill\n\n",
    ),
    "multihead": (
        "rows.txt",
        "source: conll04, layout: multihead",
        SPANS,
        b"#doc 1\n0\tAda\tB-Peop\t['N']\t[0]\n1\tmet\tO\t['N']\t[1]\n",
    ),
    "conll05": ("x.props", "source: conll05", SPANS, b"-\t(A0*)\nmeet\t(V*)\n\n"),
    "gold_conll": (
        "x_gold_conll",
        "source: gold_conll, layout: conll12",
        SPANS,
        GOLD.format(
            GOLD_LINE.format(0, "Ada", "-", "-", "(PER)", "(ARG0*)")
            + "\n"
            + GOLD_LINE.format(1, "met", "meet", "01", "*", "(V*)")
        ).encode(),
    ),
    "srl_lines": ("rows.srl", "source: srl_lines", SPANS, b"1 ada met alan ||| B-A0 B-V B-A1\n"),
}


def validated(folder: Path, kind: str, content: bytes, *, name: str | None = None) -> Ending:
    """`ptv2kit validate --data` of a task whose splits are all one file with the content."""
    own_name, source, rest, _ = SOURCES[kind]
    name = name or own_name
    (folder / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    if kind == "conll05":
        (folder / name.replace("props", "words")).write_bytes(b"ada\nmet\n\n")
    task = folder / "task.yaml"
    task.write_text(f"task: t\ndata: {{{source}, splits: {{train: {name}, validation: {name}}}}}\n{rest}")
    ending = run("validate", str(task), "--data")
    requires_message(ending, folder / name)
    return ending


@pytest.mark.slow
@pytest.mark.parametrize("kind", SOURCES)
def test_the_whole_files_are_read(tmp_path: Path, kind: str) -> None:
    ending = validated(tmp_path, kind, SOURCES[kind][3])
    assert ending.code == 0, ending


def check_damaged(folder: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(SOURCES)))
    name, _, _, whole = SOURCES[kind]
    zipped = kind not in ("parquet", "conll05") and data.draw(st.booleans())
    content = data.draw(damaged(whole))
    if zipped and data.draw(st.booleans()):
        path = folder / f"{name}.gz"
        ending = validated(folder, kind, whole, name=path.name)
        assert ending.code == 0
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        requires_message(run("validate", str(folder / "task.yaml"), "--data"), path)
    else:
        validated(folder, kind, content, name=f"{name}.gz" if zipped else None)


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_a_damaged_file_ends_with_a_message(tmp_path: Path, data: st.DataObject) -> None:
    check_damaged(tmp_path, data)


@pytest.mark.night
@DEEP
@given(data=st.data())
def test_many_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    check_damaged(tmp_path, data)


_leaf = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from([10**400, -1, 1e308, ""])
)
_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@pytest.mark.slow
@QUICK
@given(rows=st.lists(st.fixed_dictionaries({"a": _value, "label": _value}), min_size=1, max_size=3))
def test_rows_of_any_kind(tmp_path: Path, rows: list[object]) -> None:
    validated(tmp_path, "jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


@QUICK
@given(rows=st.lists(st.fixed_dictionaries({"a": _value, "label": _value}), min_size=1, max_size=9), text=st.text())
def test_a_task_can_be_proposed_for_any_rows_or_is_refused(
    tmp_path: Path, rows: list[dict[str, object]], text: str
) -> None:
    path, task = tmp_path / "rows.jsonl", tmp_path / "new.yaml"
    path.write_text("".join(json.dumps({**row, text: "b"}, ensure_ascii=True) + "\n" for row in rows))
    task.unlink(missing_ok=True)
    ending = run("new", "task", str(path), "--validation", str(path), "--to", str(task))
    assert "Traceback" not in ending.err
    assert "internal error" not in ending.err, ending


def test_a_column_cannot_write_into_the_proposed_task(tmp_path: Path) -> None:
    path, task = tmp_path / "rows.jsonl", tmp_path / "new.yaml"
    rows = [{"text": f"a b {number}", "x\nlabels: {scheme: evil}\n#": "c", "label": number % 2} for number in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ending = run("new", "task", str(path), "--validation", str(path), "--to", str(task))
    assert ending.code == 0, ending
    assert "\nlabels: {scheme: evil}" not in task.read_text()


DIGITS = "9" * 5000
BAD: dict[str, tuple[str, bytes, str]] = {
    "a deep value": ("jsonl", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested too deeply"),
    "a deep file": ("squad", b"[" * 100_000, "not readable: the JSON is nested too deeply"),
    "half of a pair": ("jsonl", b'{"a": "\\ud83d", "label": "no"}\n', "half of a surrogate pair"),
    "many digits": ("jsonl", f'{{"a": {DIGITS}, "label": "no"}}\n'.encode(), "not JSON"),
    "an index of many digits": ("srl_lines", f"{DIGITS} ada met ||| O B-V\n".encode(), "must begin with the index"),
    "NaN": ("jsonl", b'{"a": NaN, "label": "no"}\n', "NaN is not a JSON value"),
    "infinity by size": ("jsonl", b'{"a": 1e999, "label": "no"}\n', "must hold text"),
    "a giant field": ("csv", b'a,label\n"' + b"x" * 200_000 + b'",no\n', "field larger than field limit"),
    "an open quote": ("csv", b'a,label\n"x,no\n' * 3, "malformed"),
    "an empty file": ("jsonl", b"", "is empty"),
    "NUL": ("tsv", b"a\tlabel\n\0\tno\n", "holds a NUL byte"),
    "no table": ("parquet", b"PAR1" + b"\xff" * 64 + b"PAR1", "not a readable Parquet file"),
    "a footer of four gigabytes": ("parquet", b"PAR1" + b"\xff\xff\xff\x7fPAR1", "not a readable Parquet file"),
    "other columns": ("conll", b"ada\n\nmet\n", "are the same cell"),
    "no span at all": ("conll", b"ada O\nmet O\n", "of the training split holds no span"),
    "brackets": ("conll05", b"-\t(A0*))\nmeet\t(V*\n\n", "error: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, name: str) -> None:
    kind, content, message = BAD[name]
    ending = validated(tmp_path, kind, content)
    assert ending.code == 3, ending
    assert message in ending.err + ending.out
    assert len(ending.err) < 20_000


def test_values_that_python_has_no_name_for(tmp_path: Path) -> None:
    far = pyarrow.array([2**40], pyarrow.timestamp("s"))
    table = pyarrow.table({"a": far, "label": pyarrow.array(["no"])})
    assert "it could be read up to row 0" in validated(tmp_path, "parquet", parquet(table)).err
    day = pyarrow.table({"a": pyarrow.array([date(2020, 1, 1)]), "label": pyarrow.array(["no"])})
    assert "must hold text. Got a value of type date" in validated(tmp_path, "parquet", parquet(day)).err


def test_text_that_is_not_utf_8_in_a_table(tmp_path: Path) -> None:
    broken = pyarrow.array([b"\xff\xfe"], pyarrow.binary()).view(pyarrow.utf8())
    table = pyarrow.table({"a": broken, "label": pyarrow.array(["no"])})
    assert validated(tmp_path, "parquet", parquet(table)).code == 3


def test_a_line_has_an_end(tmp_path: Path) -> None:
    ending = validated(tmp_path, "jsonl", b'{"a": "' + b"x" * (1 << 25), name="rows.jsonl.gz")
    assert ending.code == 3
    assert "rows.jsonl.gz:1: error: the line has 33,554,439 characters. Expected 16,777,216 or fewer" in ending.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [DIGITS, "1.0", "-1", "", "²"])
def test_numbers_that_are_written_as_text(tmp_path: Path, number: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"a": "ada met", "at": number, "label": "no"}) + "\n")
    task = tmp_path / "task.yaml"
    task.write_text(
        "task: t\ndata: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}}\n"
        "derive: {b: {column: a, word: at, mark: '*{word}*'}}\n" + CLASSES.replace("{a}", "{b}")
    )
    ending = run("validate", str(task), "--data")
    requires_message(ending, path)
    assert ending.code == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "split", ["'a**b'", f"'{'**/' * 20}x*'", f"'{'x' * 300}/*'", "'['", '"a\\0*"', "'/**x'", "'.'", "'..'", "''"]
)
def test_patterns_that_match_nothing(tmp_path: Path, split: str) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(f"task: t\ndata: {{source: jsonl, splits: {{train: {split}, validation: r.jsonl}}}}\n{CLASSES}")
    ending = run("validate", str(task), "--data")
    assert ending.code in (2, 3), ending
    assert "internal error" not in ending.err, ending
