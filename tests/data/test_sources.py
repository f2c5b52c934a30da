"""Finding splits and reading every format of file."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ptv2kit.data.rows import Row
from ptv2kit.data.sources import Located, SplitData, locate_split, read_rows, read_split, read_splits
from ptv2kit.errors import ConfigError, DataError
from ptv2kit.spec.sources import DataSource
from ptv2kit.spec.task_base import TaskBase
from tests.data.small_tasks import data_of, task_of

SOURCE: TypeAdapter[DataSource] = TypeAdapter(DataSource)
NAMES = {"train": "train.txt", "validation": "validation.txt"}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def source(kind: str, **settings: Any) -> DataSource:
    return SOURCE.validate_python({"source": kind, "splits": NAMES, **settings})


def conll(**settings: Any) -> DataSource:
    return source("conll", **{"columns": {"word": 0, "tag": -1}, **settings})


def task(data: dict[str, Any], **settings: Any) -> TaskBase:
    return TaskBase.model_validate({"task": "demo", "data": data, **settings})


def read(path: Path, content: bytes | str, kind: DataSource) -> list[Row]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, kind))


def values(rows: list[Row]) -> list[Any]:
    return [row.values for row in rows]


def lines_of(rows: list[Row]) -> list[int]:
    return [int(row.location.rpartition(":")[2]) for row in rows]


@contextmanager
def refused(location: str, message: str, hint: str = "") -> Iterator[None]:
    """The block ends with a DataError of one problem with this location and these parts."""
    with pytest.raises(DataError) as info:
        yield
    (problem,) = info.value.problems
    assert problem.location == location
    assert message in problem.message
    assert hint in problem.hint


# --- JSON lines -------------------------------------------------------------------------------------------------------


def test_jsonl_skips_blank_lines_and_the_byte_order_mark(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.jsonl", '\ufeff{"a": 1}\r\n\n  \n{"a": {"b": [true, null, "\u2028é"]}}', source("jsonl"))
    assert values(rows) == [{"a": 1}, {"a": {"b": [True, None, "\u2028é"]}}]
    assert [row.location for row in rows] == [f"{tmp_path / 'a.jsonl'}:1", f"{tmp_path / 'a.jsonl'}:4"]


def test_jsonl_gzip(tmp_path: Path) -> None:
    assert values(read(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a": 2}\n'), source("jsonl"))) == [
        {"a": 1},
        {"a": 2},
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": 1,}', "not JSON: "),
        (b'{"a" 1}', "not JSON: Expecting ':' delimiter at column 6"),
        (b'{"a": NaN}', "not JSON: NaN is not a JSON value; write null"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON: Exceeds the limit"),
        (b"[1, 2]", "expected a JSON object. Got list [1, 2]"),
        (b'"text"', 'expected a JSON object. Got str "text"'),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8 of the line"),
    ],
)
def test_jsonl_names_the_bad_line(tmp_path: Path, line: bytes, message: str) -> None:
    with refused(f"{tmp_path / 'a.jsonl'}:3", message):
        read(tmp_path / "a.jsonl", b'{"a": 0}\n\n' + line + b'\n{"a": 1}\n', source("jsonl"))


def test_whole_surrogate_pairs_are_fine(tmp_path: Path) -> None:
    assert values(read(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}', source("jsonl"))) == [{"a": "\U0001f600"}]


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(TEXT, JSON_VALUES, max_size=3), max_size=5), st.booleans(), st.booleans())
def test_jsonl_returns_what_was_written(written: list[dict[str, Any]], ascii_only: bool, zipped: bool) -> None:
    content = "".join(json.dumps(values, ensure_ascii=ascii_only) + "\n" for values in written).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("a.jsonl.gz" if zipped else "a.jsonl")
        assert values(read(path, gzip.compress(content) if zipped else content, source("jsonl"))) == written


# --- gzip, folders, rights --------------------------------------------------------------------------------------------

LONG = b"".join(b'{"a": "%s"}\n' % hashlib.sha256(b"%d" % index).hexdigest().encode() for index in range(5000))


def test_truncated_gzip_says_how_far_it_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LONG)[:-2000])
    reader = read_rows(path, source("jsonl"))
    rows: list[Row] = []
    with refused(str(path), "Compressed file ended before"):
        rows.extend(reader)
    with pytest.raises(DataError, match=rf"the gzip data is damaged; it could be read up to line {len(rows)}: "):
        list(read_rows(path, source("jsonl")))
    assert 1000 < len(rows) < 5000


@pytest.mark.parametrize(
    ("place", "line", "cause"),
    [(slice(10, 14), 0, "Error -3 while decompressing data"), (slice(-8, -4), 2, "CRC check failed")],
)
def test_damaged_gzip(tmp_path: Path, place: slice, line: int, cause: str) -> None:
    content = bytearray(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    content[place] = b"\xff" * 4
    with refused(str(tmp_path / "a.gz"), f"the gzip data is damaged; it could be read up to line {line}: {cause}"):
        read(tmp_path / "a.gz", bytes(content), source("jsonl"))


def test_plain_text_called_gzip(tmp_path: Path) -> None:
    with refused(str(tmp_path / "a.jsonl.gz"), "up to line 0: Not a gzipped file"):
        read(tmp_path / "a.jsonl.gz", '{"a": 1}\n', source("jsonl"))


@pytest.mark.parametrize("kind", [source("jsonl"), source("csv"), source("tsv"), conll()])
def test_gzip_called_plain_text(tmp_path: Path, kind: DataSource) -> None:
    with refused(f"{tmp_path / 'a.txt'}:1", "not UTF-8", "this is gzip; its name has to end in '.gz'"):
        read(tmp_path / "a.txt", gzip.compress(b"a\tb\n"), kind)


@pytest.mark.parametrize("kind", [source("jsonl"), source("csv"), source("parquet"), conll()])
def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: DataSource) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    # A test that runs as root may read any file, whatever its mode.
    monkeypatch.setattr(Path, "open", deny)
    with refused(str(tmp_path / "a.txt"), "cannot be read: Permission denied"):
        list(read_rows(tmp_path / "a.txt", kind))


# --- comma- and tab-separated values ----------------------------------------------------------------------------------


def test_csv_with_header_quotes_and_line_breaks(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", '\ufeffa,b\r\n\r\n"x, ""y""\r\nz",1\r\nw,\r\n', source("csv"))
    assert values(rows) == [{"a": 'x, "y"\r\nz', "b": "1"}, {"a": "w", "b": ""}]
    assert lines_of(rows) == [3, 5]


def test_tsv_takes_quotes_as_text(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.tsv", 'a\tb\n"x\ty"\n\nit\u2028s\t\r\n', source("tsv"))
    assert values(rows) == [{"a": '"x', "b": 'y"'}, {"a": "it\u2028s", "b": ""}]
    assert lines_of(rows) == [2, 4]


def test_quoting_can_be_set(tmp_path: Path) -> None:
    assert values(read(tmp_path / "a.tsv", 'a\tb\n"x\ty"\tz\n', source("tsv", quoting=True))) == [
        {"a": "x\ty", "b": "z"}
    ]
    assert values(read(tmp_path / "a.csv", 'a,b\n"x,y"\n', source("csv", quoting=False))) == [{"a": '"x', "b": 'y"'}]


def test_named_columns_and_gzip(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv.gz", gzip.compress(b"1,2\n3,4\n"), source("csv", columns=["a", "b"]))
    assert values(rows) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


@pytest.mark.parametrize(
    ("kind", "content", "line", "message", "hint"),
    [
        (source("csv"), "a,b\n1,2\n1\n", 3, "expected 2 fields (a, b). Got 1", "quote a field"),
        (source("csv"), 'a,b\n"x\ny",2\n1,2,3\n', 4, "expected 2 fields (a, b). Got 3", "quote a field"),
        (source("tsv"), "a\tb\n1\t2\t3\n", 2, "expected 2 fields (a, b). Got 3", "'data.quoting: true'"),
        (source("tsv", columns=["a"]), "1\n1\t2\n", 2, "expected 1 field (a). Got 2", ""),
        (source("csv"), "a,b,a\n1,2,3\n", 1, "column 'a' occurs twice", ""),
        (source("csv"), 'a,b\n1,"x\n2,y\n', 2, "malformed: unexpected end of data", "'data.quoting: false'"),
        (source("csv"), 'a,b\n1,"x"y\n', 2, "malformed: ',' expected after '\"'", "'data.quoting: false'"),
        (source("csv"), f"a,b\n1,2\n1,{'x' * 140_000}\n", 3, "malformed: field larger than field limit", "JSON lines"),
        (source("csv"), "a,b\n1,\0\n", 2, "the line holds a NUL byte", "UTF-8"),
        (source("tsv"), "a\tb\n1\t\0\n", 2, "the line holds a NUL byte", "UTF-8"),
    ],
)
def test_table_names_the_bad_line(
    tmp_path: Path, kind: DataSource, content: str, line: int, message: str, hint: str
) -> None:
    with refused(f"{tmp_path / 'a.txt'}:{line}", message, hint):
        read(tmp_path / "a.txt", content, kind)


def test_columns_without_a_name_and_empty_records_are_left_out(tmp_path: Path) -> None:
    rows = read(tmp_path / "spam.csv", "v1,v2,,\nham,hello,,\n,,,\nspam,win,x,\n", source("csv"))
    assert values(rows) == [{"v1": "ham", "v2": "hello"}, {"v1": "spam", "v2": "win"}]
    assert lines_of(rows) == [2, 4]


@pytest.mark.parametrize(
    ("kind", "content"),
    [("csv", "text,label\ngrüße,ja\n"), ("tsv", "text\tlabel\ngrüße\tja\n")],
)
def test_tables_have_an_encoding(tmp_path: Path, kind: str, content: str) -> None:
    raw = content.encode("cp1252")
    assert values(read(tmp_path / "t", raw, source(kind, encoding="Windows-1252"))) == [
        {"text": "grüße", "label": "ja"}
    ]
    with refused(f"{tmp_path / 't'}:2", "not UTF-8: byte 0xfc at byte 3 of the line", "data.encoding"):
        read(tmp_path / "t", raw, source(kind))
    with refused(f"{tmp_path / 't'}:1", "not CP1252: byte 0x81 at byte 1 of the line"):
        read(tmp_path / "t", b"\x81" + raw, source(kind, encoding="cp1252"))


def test_a_table_in_utf16(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for kind in ("utf-16", "utf-16-le", "utf-32"):
        content = "text,label\ngrüße\u2028\u010a,ja\n".encode(kind)
        assert values(read(path, content, source("csv", encoding=kind))) == [
            {"text": "grüße\u2028\u010a", "label": "ja"}
        ]
    with refused(f"{path}:1", "not UTF-8: byte 0xff", "data.encoding: utf-16"):
        read(path, "text,label\n".encode("utf-16"), source("csv"))
    with refused(f"{path}:1", "not UTF-16", "save the file as UTF-8"):
        read(path, "text,label\n".encode("utf-16")[:-1], source("csv", encoding="utf-16"))


def test_an_array_within_an_object(tmp_path: Path) -> None:
    path, content = tmp_path / "t.json", json.dumps({"n": 1, "a": {"rows": [{"x": 1}, 2, {"x": 3}]}}, indent=1)
    path.write_text(content)
    found: list[DataError] = []
    rows = list(read_rows(path, source("jsonl", records="a.rows"), found.append))
    assert values(rows) == [{"x": 1}, {"x": 3}]
    assert [str(error) for error in found] == [f"{path}: row 2: error: expected a JSON object. Got int"]
    for records, message in (("a.row", "no field 'row'"), ("n", "must hold an array"), ("n.x", "no field 'x'")):
        with refused(str(path), message):
            read(path, content, source("jsonl", records=records))


def test_conll_has_an_encoding(tmp_path: Path) -> None:
    rows = read(tmp_path / "t", "España B-LOC\n".encode("latin-1"), conll(encoding="latin-1"))
    assert values(rows) == [{"word": ["España"], "tag": ["B-LOC"]}]


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13"])
def test_an_encoding_that_is_none(name: str) -> None:
    with pytest.raises(ValidationError, match="an encoding of texts that Python knows, such as cp1252"):
        source("csv", encoding=name)


SENTENCES = "id,word,tag\n1,Ada,B-PER\n1,left,O\n2,she,O\n,slept,O\n1,again,O\n"


def test_a_word_in_each_record(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.csv", SENTENCES, source("csv", sentence="id"))
    assert values(rows) == [
        {"id": "1", "word": ["Ada", "left"], "tag": ["B-PER", "O"]},
        {"id": "2", "word": ["she", "slept"], "tag": ["O", "O"]},
        {"id": "1", "word": ["again"], "tag": ["O"]},
    ]
    assert lines_of(rows) == [2, 4, 6]
    with refused(f"{tmp_path / 't.csv'}", "no column 'sentence', as 'data.sentence' says", "id, word, tag"):
        read(tmp_path / "t.csv", SENTENCES, source("csv", sentence="sentence"))


@pytest.mark.parametrize(
    ("line", "left", "faults"),
    [
        (2, ["she", "again"], 1),  # the first word of the first sentence
        (3, ["again"], 2),  # its last, or the first of the second: both may lack it
        (4, [], 1),  # without its number all the rest looks like the first
        (5, ["Ada"], 2),
        (6, ["Ada"], 1),
    ],
)
def test_a_sentence_that_may_lack_a_word_is_left_out(tmp_path: Path, line: int, left: list[str], faults: int) -> None:
    lines = SENTENCES.splitlines()
    lines[line - 1] += ",more"
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    found: list[DataError] = []
    rows = list(read_rows(tmp_path / "t.csv", source("csv", sentence="id"), found.append))
    assert [row.words("word")[0] for row in rows] == left
    assert [problem.location for error in found for problem in error.problems] == [
        f"{tmp_path / 't.csv'}:{line}"
    ] * faults


def test_named_columns_must_differ(tmp_path: Path) -> None:
    with refused(str(tmp_path / "a.csv"), "column 'a' occurs twice"):
        read(tmp_path / "a.csv", "1,2\n", source("csv", columns=["a", "a"]))


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5), st.sampled_from(["csv", "tsv"]), st.sampled_from(["\n", "\r\n"]))
def test_table_returns_what_was_written(written: list[tuple[str, str]], kind: str, end: str) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="," if kind == "csv" else "\t", lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *written])
    with tempfile.TemporaryDirectory() as folder:
        rows = read(Path(folder) / "a.txt", buffer.getvalue(), source(kind, quoting=True))
    assert values(rows) == [{"a": first, "b": second} for first, second in written if first or second]


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet(tmp_path: Path) -> None:
    written = [{"a": 1, "tokens": ["x", "y"], "idx": {"p": 1}}, {"a": None, "tokens": [], "idx": {"p": 2}}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(written), tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet", source("parquet")))
    assert values(rows) == written
    assert [row.location for row in rows] == [f"{tmp_path / 'a.parquet'}: row 1", f"{tmp_path / 'a.parquet'}: row 2"]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_parquet_that_is_none(tmp_path: Path, content: bytes) -> None:
    with refused(str(tmp_path / "a.parquet"), "not a readable Parquet file; it could be read up to row 0: "):
        read(tmp_path / "a.parquet", content, source("parquet"))


def test_parquet_with_a_repeated_column(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with refused(str(tmp_path / "a.parquet"), "column 'a' occurs twice"):
        list(read_rows(tmp_path / "a.parquet", source("parquet")))


# --- CoNLL columns ----------------------------------------------------------------------------------------------------


def test_conll(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- O O\r\n\r\nEU NNP  B-ORG\r\nrejects\tVBZ O \r\n \r\n\r\n-DOCSTART-\r\nPeter NNP B-PER"
    rows = read(tmp_path / "a.txt", content, conll())
    assert values(rows) == [
        {"word": ["EU", "rejects"], "tag": ["B-ORG", "O"]},
        {"word": ["Peter"], "tag": ["B-PER"]},
    ]
    assert lines_of(rows) == [3, 8]


def test_conll_keeps_unicode_spaces_within_tokens(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.txt", "10\u00a0km O\n\u2028 O\n", conll())
    assert values(rows) == [{"word": ["10\u00a0km", "\u2028"], "tag": ["O", "O"]}]


def test_conll_comments_do_not_end_a_sentence(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.txt", "# id = 1\na O\n# note\nb O\n\n", conll(comment="# "))
    assert values(rows) == [{"word": ["a", "b"], "tag": ["O", "O"]}]
    assert lines_of(rows) == [2]


@pytest.mark.parametrize(
    ("separator", "line", "expected"),
    [("tab", "New York\tX\tO", ["New York", "O"]), ("space", "a\tb X O", ["a\tb", "O"])],
)
def test_conll_separators(tmp_path: Path, separator: str, line: str, expected: list[str]) -> None:
    rows = read(tmp_path / "a.txt", line + "\n", conll(separator=separator))
    assert values(rows) == [{"word": [expected[0]], "tag": [expected[1]]}]


@pytest.mark.parametrize(
    ("settings", "line", "message"),
    [
        ({"columns": {"word": 0, "tag": 3}}, "a O", "column 'tag' has index 3, but the line has 2 columns"),
        ({"columns": {"word": 0, "tag": -2}}, "a", "column 'tag' has index -2, but the line has 1 column"),
        ({"separator": "tab"}, "a\t\t", "column 'tag' is empty"),
        ({"separator": "space"}, " O", "column 'word' is empty"),
    ],
)
def test_conll_names_the_bad_line(tmp_path: Path, settings: dict[str, Any], line: str, message: str) -> None:
    with refused(f"{tmp_path / 'a.txt'}:3", message):
        read(tmp_path / "a.txt", f"\n1\t2 3\t4 5\n{line}\n", conll(**settings))


# --- splits -----------------------------------------------------------------------------------------------------------

JSONL = {"source": "jsonl", "splits": {"train": "set/train.jsonl", "validation": "set/validation.jsonl"}}


def place(folder: Path, text: str = "x") -> Path:
    path = folder / "set" / "train.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"text": text}) + "\n")
    return path


def test_the_data_root_comes_before_the_task_file(tmp_path: Path) -> None:
    beside, under = place(tmp_path / "tasks", "beside"), place(tmp_path / "root", "under")
    where = {"task_path": tmp_path / "tasks" / "demo.yaml", "data_root": tmp_path / "root"}
    data = read_split(task(JSONL), "train", **where)
    digest = hashlib.sha256(under.read_bytes()).hexdigest()
    assert data == SplitData("train", (Row({"text": "under"}, f"{under}:1"),), str(under), digest)
    under.unlink()
    assert locate_split(task(JSONL), "train", **where) == Located(beside, (beside,))
    assert locate_split(task(JSONL), "train", task_path=where["task_path"], data_root=None) == Located(
        beside, (beside,)
    )


def test_absolute_paths_stay(tmp_path: Path) -> None:
    path = place(tmp_path / "elsewhere")
    place(tmp_path / "root")
    spec = task({"source": "jsonl", "splits": {"train": str(path), "validation": "v"}})
    assert locate_split(spec, "train", task_path=tmp_path / "t.yaml", data_root=tmp_path / "root") == Located(
        path, (path,)
    )


def test_missing_file_names_the_places(tmp_path: Path) -> None:
    task_path, root = tmp_path / "tasks" / "demo.yaml", tmp_path / "root"
    root.mkdir()
    expected = (
        f"file 'set/train.jsonl' of split 'train' was not found; looked for {root / 'set/train.jsonl'} "
        f"and {tmp_path / 'tasks/set/train.jsonl'}"
    )
    with refused(str(task_path), expected, "--data-root or the environment variable PTV2KIT_DATA"):
        read_split(task(JSONL), "train", task_path=task_path, data_root=root)


def test_missing_absolute_file(tmp_path: Path) -> None:
    spec = task({"source": "jsonl", "splits": {"train": str(tmp_path / "no.jsonl"), "validation": "v"}})
    with pytest.raises(DataError, match=re.escape(f"looked for {tmp_path / 'no.jsonl'}") + "$"):
        locate_split(spec, "train", task_path=tmp_path / "t.yaml", data_root=tmp_path)


def test_absent_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as info:
        locate_split(task(JSONL), "test", task_path=tmp_path / "t.yaml", data_root=None)
    assert str(info.value) == (
        f"{tmp_path / 't.yaml'}: error: task 'demo' has no split 'test'\n  hint: it has train, validation"
    )


def test_directory_instead_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "set" / "train.jsonl").mkdir(parents=True)
    with refused(str(tmp_path / "set/train.jsonl"), "expected a file. Got a directory"):
        locate_split(task(JSONL), "train", task_path=tmp_path / "t.yaml", data_root=None)


def test_path_that_the_system_refuses(tmp_path: Path) -> None:
    spec = task({"source": "jsonl", "splits": {"train": "x" * 300, "validation": "v"}})
    with refused(str(tmp_path / ("x" * 300)), "cannot be read: File name too long"):
        locate_split(spec, "train", task_path=tmp_path / "t.yaml", data_root=None)


def test_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    spec = task({"source": "jsonl", "splits": {"train": "rows.jsonl/train.jsonl", "validation": "v"}})
    with refused(str(tmp_path / "t.yaml"), "file 'rows.jsonl/train.jsonl' of split 'train' was not found"):
        locate_split(spec, "train", task_path=tmp_path / "t.yaml", data_root=None)


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ({"source": "jsonl"}, ""),
        ({"source": "jsonl"}, "\n\n"),
        ({"source": "csv"}, "a,b\n"),
        ({"source": "tsv"}, ""),
        ({"source": "conll", "columns": {"w": 0}}, "-DOCSTART- O\n\n"),
    ],
)
def test_empty_split(tmp_path: Path, data: dict[str, Any], content: str) -> None:
    (tmp_path / "train.txt").write_text(content)
    with refused(str(tmp_path / "train.txt"), "split 'train' is empty"):
        read_split(task({**data, "splits": NAMES}), "train", task_path=tmp_path / "t.yaml", data_root=None)


def test_a_row_is_too_few_for_shares(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    splits = {"train": "rows.jsonl", "validation": "10%"}
    with pytest.raises(DataError) as raised:
        read_splits(
            task({"source": "jsonl", "splits": splits}),
            ["train", "validation"],
            task_path=tmp_path / "t.yaml",
            data_root=None,
        )
    [problem] = raised.value.problems
    assert problem.message == "split 'train' is empty"
    assert problem.hint == "too few rows (1) for shares of them: give each split a file"


def test_derived_columns_are_there(tmp_path: Path) -> None:
    place(tmp_path, "cause")
    spec = task(JSONL, derive={"joiner": {"column": "text", "map": {"cause": "because"}}})
    data = read_split(spec, "train", task_path=tmp_path / "t.yaml", data_root=None)
    assert values(list(data.rows)) == [{"text": "cause", "joiner": "because"}]


def test_two_columns_of_conll_on_one_cell(tmp_path: Path) -> None:
    path = tmp_path / "t.conll"
    path.write_text("Ada x B-PER\nO\n")
    splits = {"train": "t", "validation": "t"}
    source = TypeAdapter(DataSource).validate_python(
        {"source": "conll", "columns": {"w": 0, "t": -1}, "splits": splits}
    )
    with refused(f"{path}:2", "columns 'w' and 't' are the same cell, because the line has 1 column"):
        list(read_rows(path, source))


def test_rows_are_drawn_of_each_class() -> None:
    names = {"0": "no", "1": "yes", "2": "yes", "true": "yes"}
    task = task_of({"input": {"text": "{text}"}, "labels": {"scheme": "classes", "column": "of.label", "names": names}})
    labels = [0] * 30 + ["1", "2", 1, True] * 5 + [2]
    data = data_of(task, [{"text": str(index), "of": {"label": label}} for index, label in enumerate(labels)])
    drawn = data.limited("8 per class", 3, task)
    assert [task.class_of(row.value("of.label")) for row in drawn.rows] == ["no"] * 8 + ["yes"] * 8
    assert drawn.rows != data.limited("8 per class", 4, task).rows
    assert drawn == data.limited("8 per class", 3, task)
    whole = data.limited("25 per class", 3, task)
    assert len(whole.rows) == 25 + 21
    assert data.limited(12, 3, task).rows == tuple(
        data.rows[index] for index in sorted(random.Random(3).sample(range(51), 12))
    )
    missing = data_of(task, [{"text": "a"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        missing.limited("8 per class", 3, task)
