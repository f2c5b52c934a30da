"""The readers of CoNLL corpora in their own layouts: CoNLL-2004, CoNLL-2005, CoNLL-2012, PropBank."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptv2kit.data.rows import Row
from ptv2kit.data.sources.conll import read_conll
from ptv2kit.data.sources.conll04 import read_conll04
from ptv2kit.data.sources.conll05 import read_conll05, words_path
from ptv2kit.data.sources.gold_conll import read_gold_conll
from ptv2kit.data.sources.srl_lines import read_srl_lines
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import Conll04Source, Conll05Source, ConllSource, GoldConllSource, Splits

SPLITS = Splits(train="train", validation="validation")
CORP = Conll04Source(source="conll04", layout="corp", splits=SPLITS)
MULTIHEAD = Conll04Source(source="conll04", layout="multihead", splits=SPLITS)
CONLL05 = Conll05Source(source="conll05", splits=SPLITS)
CONLL12 = GoldConllSource(source="gold_conll", layout="conll12", splits=SPLITS)
ENTITIES = GoldConllSource(source="gold_conll", layout="conll12", unit="sentence", splits=SPLITS)
PROPBANK = GoldConllSource(source="gold_conll", layout="propbank", splits=SPLITS)

TOKENS = ["Tamsin", "Oakes", "tried", "to", "sell", "the", "mill", "."]
TRIED = ["B-ARG0", "I-ARG0", "B-V", "B-ARG1", "I-ARG1", "I-ARG1", "I-ARG1", "O"]
SELL = ["B-ARG0", "I-ARG0", "O", "O", "B-V", "B-ARG1", "I-ARG1", "O"]


def values(rows: Iterator[Row]) -> list[Any]:
    return [row.values for row in rows]


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@contextmanager
def refused(location: str, message: str, hint: str = "") -> Iterator[None]:
    """The block ends with a DataError of one problem with this location and these parts."""
    with pytest.raises(DataError) as info:
        yield
    (problem,) = info.value.problems
    assert problem.location == location
    assert message in problem.message
    assert hint in problem.hint


# --- CoNLL-2004 -------------------------------------------------------------------------------------------------------


def corp(*tokens: str) -> str:
    """Lines of `type POS word`."""
    parts = [token.split(" ") for token in tokens]
    return "".join(f"7\t{kind}\t{i}\tO\t{pos}\t{word}\tO\tO\tO\n" for i, (kind, pos, word) in enumerate(parts))


def test_conll04_corp(tmp_path: Path) -> None:
    related = corp("Peop NNP/NNP Ada/Oakes", "O , COMMA", "Other CD/,/CD/NNS 3/COMMA/500/acres") + "\n0\t2\tLive_In\n\n"
    alone = corp("Loc NNP Rome", "Loc NNP Paris") + "\n\n"
    path = write(tmp_path / "c.corp", related + alone + corp("O NNP last").rstrip("\n"))
    rows = list(read_conll04(path, CORP))
    assert values(iter(rows)) == [
        {
            "tokens": ["Ada", "Oakes", ",", "3", ",", "500", "acres"],
            "tags": ["B-Peop", "I-Peop", "O", "B-Other", "I-Other", "I-Other", "I-Other"],
        },
        {"tokens": ["Rome", "Paris"], "tags": ["B-Loc", "B-Loc"]},
        {"tokens": ["last"], "tags": ["O"]},
    ]
    assert [row.location for row in rows] == [f"{path}:1", f"{path}:7", f"{path}:11"]


def test_parts_of_speech_decide_whether_a_slash_joins(tmp_path: Path) -> None:
    content = corp("O CD 1/2", "Org NNP AP/UPI", "Org NNP/NNP AP/UPI/Rome", "O CD/CD /", "Org NNP/NNP/NNP A/B")
    (row,) = values(read_conll04(write(tmp_path / "c.corp", content), CORP))
    assert row["tokens"] == ["1/2", "AP/UPI", "AP/UPI/Rome", "/", "A/B"]
    assert row["tags"] == ["O", "B-Org", "B-Org", "O", "B-Org"]


def test_conll04_multihead(tmp_path: Path) -> None:
    first = "#doc 12\n0\tAda\tB-Peop\t['Live_In', 'Kill']\t[1, 0]\n1\tRome\tB-Loc\t['N']\t[1]\n"
    content = f"{first}#doc 13\n0\t#doc\tO\t['N']\t[0]"
    path = write(tmp_path / "train.txt.gz", content)
    rows = list(read_conll04(path, MULTIHEAD))
    assert values(iter(rows)) == [
        {"tokens": ["Ada", "Rome"], "tags": ["B-Peop", "B-Loc"]},
        {"tokens": ["#doc"], "tags": ["O"]},
    ]
    assert [row.location for row in rows] == [f"{path}:2", f"{path}:5"]


def test_conll04_samples(shared: Path) -> None:
    folder = shared / "data/format_samples/conll04"
    people = ["Tamsin", "Oakes", "works", "for", "Farrow", "Mills"]
    tags = ["B-Peop", "I-Peop", "O", "O", "B-Org", "I-Org"]
    joined = {"tokens": [*people, "in", "Ellery", "."], "tags": [*tags, "O", "B-Loc", "O"]}
    assert values(read_conll04(folder / "conll04.corp", CORP)) == [joined]
    assert values(read_conll04(folder / "multihead.txt", MULTIHEAD)) == [
        {"tokens": [*people, "."], "tags": [*tags, "O"]}
    ]
    assert values(read_columns(folder / "train.txt", {"tokens": 0, "tags": 1})) == [joined]


@pytest.mark.parametrize(
    ("source", "content", "line", "message"),
    [
        (CORP, corp("O NN a") + "\na O\n", 3, "expected 9 columns, separated by tabs: an entity or a token"),
        (CORP, corp("O NN a", "O NN b") + "0\t1\tKill\n", 3, "expected 9 columns as in the first line"),
        (CORP, corp("O NN a", "O NN "), 1, "a token of the sentence is empty"),
        (MULTIHEAD, "#doc 1\n0\ta\tO\n", 2, "expected 5 columns, separated by tabs: index, token"),
        (MULTIHEAD, "#doc 1\n0\ta\tO\t['N']\t[0]\n1\tb\tO\n", 3, "expected 5 columns as in the first line"),
    ],
)
def test_conll04_names_the_bad_line(
    tmp_path: Path, source: Conll04Source, content: str, line: int, message: str
) -> None:
    path = write(tmp_path / "c", content)
    with refused(f"{path}:{line}", message):
        list(read_conll04(path, source))


# --- one predicate a line ---------------------------------------------------------------------------------------------


def test_srl_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt.gz", "1 Ada  left ||| B-A0 B-V \r\n\n0 ||| 10\u00a0km ||| O B-A1")
    rows = list(read_srl_lines(path))
    assert values(iter(rows)) == [
        {"tokens": ["Ada", "left"], "predicate_index": 1, "tags": ["B-A0", "B-V"]},
        {"tokens": ["|||", "10\u00a0km"], "predicate_index": 0, "tags": ["O", "B-A1"]},
    ]
    assert [row.location for row in rows] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 Ada left", "expected 'index tokens ||| tags'. Got no |||"),
        ("1 Ada left ||| B-A0", "2 tokens but 1 tags"),
        ("2 Ada left ||| B-A0 B-V", "the index of its predicate, below 2. Got '2'"),
        ("-1 Ada left ||| B-A0 B-V", "below 2. Got '-1'"),
        ("Ada left ||| B-V", "below 1. Got 'Ada'"),
        ("||| ", "0 tokens but 1 tags"),
    ],
)
def test_srl_lines_name_the_bad_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.txt", f"0 left ||| B-V\n\n{line}\n")
    with refused(f"{path}:3", message):
        list(read_srl_lines(path))


@pytest.mark.parametrize(("name", "strip"), [("conll12/conll2012.train.txt", ""), ("conll05/conll05.train.txt", "RG")])
def test_srl_lines_samples(shared: Path, name: str, strip: str) -> None:
    rows = values(read_srl_lines(shared / "data/format_samples" / name))
    assert rows == [
        {"tokens": TOKENS, "predicate_index": 2, "tags": [tag.replace(strip, "") for tag in TRIED]},
        {"tokens": TOKENS, "predicate_index": 4, "tags": [tag.replace(strip, "") for tag in SELL]},
    ]


# --- CoNLL-2005 -------------------------------------------------------------------------------------------------------


def conll05(folder: Path, words: str, props: str, suffix: str = "") -> Path:
    write(folder / f"train/words/train.02.words{suffix}", words)
    return write(folder / f"train/props/train.02.props{suffix}", props)


def test_conll05(tmp_path: Path) -> None:
    words = "It DT (S*\nfell VBD *\n. . *)\n\nNo\n\n\nwhat\nit\nlooked\nup\n"
    props = "-  (A1*)\nfall (V*)\n- *\n\n-\n\n-    (R-A1*)\n-   (A0*)\nlook (V*)\n-  (C-V*)"
    path = conll05(tmp_path, words, props, ".gz")
    rows = list(read_conll05(path, CONLL05))
    assert values(iter(rows)) == [
        {"tokens": ["It", "fell", "."], "predicate_index": 1, "predicate": "fall", "tags": ["B-A1", "B-V", "O"]},
        {
            "tokens": ["what", "it", "looked", "up"],
            "predicate_index": 2,
            "predicate": "look",
            "tags": ["B-R-A1", "B-A0", "B-V", "B-C-V"],
        },
    ]
    assert [row.location for row in rows] == [f"{path}:2", f"{path}:9"]


def test_conll05_samples(shared: Path) -> None:
    rows = values(read_conll05(shared / "data/format_samples/conll05/train.props", CONLL05))
    lines = values(read_srl_lines(shared / "data/format_samples/conll05/conll05.train.txt"))
    assert rows == [{**line, "predicate": lemma} for line, lemma in zip(lines, ["try", "sell"], strict=True)]


def test_words_path() -> None:
    assert words_path(Path("/props/train/props/train.props.gz")) == Path("/props/train/words/train.words.gz")
    assert words_path(Path("train.props")) == Path("train.words")
    with refused("train/props/a.txt", "the name of a props file must contain 'props'"):
        words_path(Path("train/props/a.txt"))


def test_missing_words(tmp_path: Path) -> None:
    path = write(tmp_path / "props" / "a.props", "- *\n")
    looked = tmp_path / "words" / "a.words"
    with refused(str(path), f"the words of these props were not found; looked for {looked}: No such file"):
        list(read_conll05(path, CONLL05))


@pytest.mark.parametrize(
    ("words", "props", "place", "message"),
    [
        ("a\n\nb\n", "-\n", "words:3", "this sentence has no partner; "),
        ("a\n", "-\n\n-\n", "props:3", "this sentence has no partner; "),
        ("a\n\nb\nc\n", "-\n\n-\n", "props:3", "the sentence has 1 lines of props but 2 words in "),
        ("a\nb\n", "go (V*)\n- *\n- *\n", "props:1", "the sentence has 3 lines of props but 2 words in "),
        ("a\nb\n", "go (V*) *\n- * *\n", "props:1", "1 predicates in its first column, but 2 columns of roles"),
        ("a\nb\n", "go (V*)\ngo *\n", "props:1", "2 predicates in its first column, but 1 columns of roles"),
        ("a\nb\n", "go (V*)\n-\n", "props:2", "expected 2 columns as in the first line of the sentence. Got 1"),
        ("a\nb\n", "go (V*)\n- (A0*\n", "props:2", "column 2: cell 2 of 2, '(A0*', opens a span that is never"),
        ("a\nb\n", "go (A0*)\n- *\n", "props:1", "column 2 must have one span V, its predicate. Got 0"),
        ("a\nb\n", "go (V*)\n- (V*)\n", "props:1", "column 2 must have one span V, its predicate. Got 2"),
    ],
)
def test_conll05_names_the_bad_line(tmp_path: Path, words: str, props: str, place: str, message: str) -> None:
    path = conll05(tmp_path, words, props)
    kind, _, line = place.partition(":")
    with refused(f"{path if kind == 'props' else words_path(path)}:{line}", message):
        list(read_conll05(path, CONLL05))


# --- _gold_conll ------------------------------------------------------------------------------------------------------

SENTENCE = """\
nw/x 0 0 Ada   NNP (TOP(S(NP*) -    -  - - (PERSON) (ARG0*)  (ARG0*) (0)
nw/x 0 1 #end  VBD (VP*        look 01 1 - *        (V*      *       -
nw/x 0 2 up    RP  *           -    -  - - *        *)       *       -
nw/x 0 3 town  NN  *           town -  2 - (GPE*    (ARG1*   *       (1
nw/x 0 4 sells VBZ *           sell 02 - - *)       *)       (V*)    1)
"""


def test_conll12(tmp_path: Path) -> None:
    content = f"#begin document (nw/x); part 000\n{SENTENCE}\n\nnw/x 0 0 Oh UH * - - - - * -\n#end document\n"
    content += f"#begin document (nw/x); part 001\n{SENTENCE}"
    path = write(tmp_path / "x.v4_gold_conll.gz", content)
    rows = list(read_gold_conll(path, CONLL12))
    tokens = ["Ada", "#end", "up", "town", "sells"]
    look = {
        "tokens": tokens,
        "predicate_index": 1,
        "predicate": "look",
        "sense": "look.01",
        "tags": ["B-ARG0", "B-V", "I-V", "B-ARG1", "I-ARG1"],
    }
    sell = {
        "tokens": tokens,
        "predicate_index": 4,
        "predicate": "sell",
        "sense": "sell.02",
        "tags": ["B-ARG0", "O", "O", "O", "B-V"],
    }
    assert values(iter(rows)) == [look, sell, look, sell]
    assert [row.location for row in rows] == [f"{path}:{line}" for line in (3, 6, 13, 16)]
    entities = {"tokens": tokens, "tags": ["B-PERSON", "O", "O", "B-GPE", "I-GPE"]}
    assert values(read_gold_conll(path, ENTITIES)) == [entities, {"tokens": ["Oh"], "tags": ["O"]}, entities]


def test_propbank_takes_the_predicate_from_its_span(tmp_path: Path) -> None:
    content = (
        "d 0 0 cross VB (VP* - - (V*)\nd 0 1 them PRP * - - (ARG1*)\nd 0 2 check VB *) cross_check check.01 (C-V*)"
    )
    (row,) = values(read_gold_conll(write(tmp_path / "a.gold_conll", content), PROPBANK))
    assert row == {
        "tokens": ["cross", "them", "check"],
        "predicate_index": 0,
        "predicate": "cross_check",
        "sense": "check.01",
        "tags": ["B-V", "B-ARG1", "B-C-V"],
    }


def test_gold_conll_samples(shared: Path) -> None:
    folder = shared / "data/format_samples"
    rows = [
        {"tokens": TOKENS, "predicate_index": 2, "predicate": "try", "sense": "try.01", "tags": TRIED},
        {"tokens": TOKENS, "predicate_index": 4, "predicate": "sell", "sense": "sell.01", "tags": SELL},
    ]
    assert values(read_gold_conll(folder / "conll12/sample.gold_conll", CONLL12)) == rows
    assert values(read_gold_conll(folder / "propbank_release/sample.gold_conll", PROPBANK)) == rows
    assert values(read_gold_conll(folder / "conll12/sample.gold_conll", ENTITIES)) == [
        {"tokens": TOKENS, "tags": ["B-PERSON", "I-PERSON", *["O"] * 6]}
    ]
    skeleton = folder / "propbank_release/sample.gold_skel"
    with refused(f"{skeleton}:1", "the words are masked as [WORD]", "the release's own scripts put them back"):
        list(read_gold_conll(skeleton, PROPBANK))


@pytest.mark.parametrize(
    ("source", "edit", "line", "message"),
    [
        (CONLL12, ("nw/x", "#end document\nnw/x 0 0 a\n\nnw/x"), 2, "expected 12 columns or more with layout conll12"),
        (CONLL12, (" up ", " [WORD] "), 3, "the words are masked as [WORD]"),
        (CONLL12, ("look 01", "look - "), 1, "the sentence has 1 rolesets but 2 columns of roles"),
        (PROPBANK, ("", ""), 1, "the sentence has 2 rolesets but 6 columns of roles"),
        (CONLL12, ("(ARG1*   *", "(V*      *"), 1, "column 12 must have one span V, its predicate. Got 2"),
        (CONLL12, ("(ARG1*   *", "*)       *"), 4, "column 12: cell 4 of 5, '*)', closes a span that is not open"),
        (ENTITIES, ("(PERSON)", "(PERSON*"), 4, "column 11: cell 4 of 5, '(GPE*', opens a span within a span PERSON"),
        (CONLL12, (" 1)", ""), 5, "expected 14 columns as in the first line of the sentence. Got 13"),
    ],
)
def test_gold_conll_names_the_bad_line(
    tmp_path: Path, source: GoldConllSource, edit: tuple[str, str], line: int, message: str
) -> None:
    path = write(tmp_path / "a.gold_conll", SENTENCE.replace(*edit, 1))
    with refused(f"{path}:{line}", message):
        list(read_gold_conll(path, source))


def test_propbank_has_no_entities(tmp_path: Path) -> None:
    both = GoldConllSource(source="gold_conll", layout="propbank", unit="sentence", splits=SPLITS)
    with pytest.raises(AssertionError, match="no named entities"):
        next(read_gold_conll(write(tmp_path / "a", SENTENCE), both))


# --- what the plain column reader reads -------------------------------------------------------------------------------


def read_columns(path: Path, columns: dict[str, int], **settings: Any) -> Iterator[Row]:
    return read_conll(path, ConllSource(source="conll", splits=SPLITS, columns=columns, **settings))


@pytest.mark.parametrize("tag", [3, -1])
def test_conll03_sample(shared: Path, tag: int) -> None:
    rows = values(read_columns(shared / "data/format_samples/conll03/train.txt", {"tokens": 0, "tags": tag}))
    assert rows == [
        {
            "tokens": ["Tamsin", "Oakes", "visited", "Port", "Ellery", "."],
            "tags": ["I-PER", "I-PER", "O", "I-LOC", "I-LOC", "O"],
        },
        {
            "tokens": ["Farrow", "Bluth", "and", "the", "Norse", "team", "met", "."],
            "tags": ["I-ORG", "B-ORG", "O", "O", "I-MISC", "O", "O", "O"],
        },
    ]


@pytest.mark.parametrize(("name", "token"), [("train.sd.conllx", 1), ("onto.train.ner", 0)])
def test_ontonotes_samples(shared: Path, name: str, token: int) -> None:
    path = shared / "data/format_samples/ontonotes_ner" / name
    assert values(read_columns(path, {"tokens": token, "tags": -1}, separator="tab")) == [
        {
            "tokens": ["Tamsin", "Oakes", "paid", "40", "crowns", "on", "Monday", "."],
            "tags": ["B-PERSON", "I-PERSON", "O", "B-MONEY", "I-MONEY", "O", "B-DATE", "O"],
        }
    ]


@pytest.mark.parametrize(
    "read",
    [
        read_srl_lines,
        lambda path: read_conll04(path, CORP),
        lambda path: read_conll04(path, MULTIHEAD),
        lambda path: read_gold_conll(path, CONLL12),
    ],
)
def test_gzip_called_plain_text(tmp_path: Path, read: Callable[[Path], Iterator[Row]]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(b"a"))
    with refused(f"{path}:1", "not UTF-8", "this is gzip; its name has to end in '.gz'"):
        list(read(path))
