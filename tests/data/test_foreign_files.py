"""Files as other tools write them: read as they are meant, or refused with what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, PreTrainedTokenizerFast

from ptv2kit.cli.main import main
from ptv2kit.data.rows import LONGEST_TEXT, Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.sources import read_rows, read_split
from ptv2kit.data.spans import to_iob2
from ptv2kit.data.tokens import Subwords, UnusableTokenError
from ptv2kit.errors import DataError
from ptv2kit.spec.sources import ConllSource, JsonlSource, Splits, SquadSource, TableSource
from tests.data.small_tasks import subwords_of, task_of, tokenizers
from tests.tiny_backbones import save_tokenizer

__all__ = ["tokenizers"]
SPLITS = Splits(train="a", validation="a")
TEXT = {"text": "{text}", "max_length": 12}
WORDS = {"words": "tokens", "max_length": 12}


@pytest.fixture
def bert(tokenizers: dict[str, Path]) -> Subwords:
    return subwords_of(tokenizers["bert"])


def row(**values: Any) -> Row:
    return Row(values, "a.jsonl:1")


def classes(subwords: Subwords, names: Any, train: list[Row] | None = None, scheme: str = "classes") -> LabelScheme:
    return build_scheme(
        task_of({"input": TEXT, "labels": {"scheme": scheme, "column": "label", "names": names}}), subwords, train or []
    )


@pytest.mark.parametrize(("value", "expected"), [(1, "1"), ("1", "1"), (0, "0"), ("0", "0")])
def test_a_number_among_the_names_is_that_class_whatever_its_type(bert: Subwords, value: Any, expected: str) -> None:
    [feature] = classes(bert, ["1", "0"]).encode(row(text="ada", label=value), 0)
    assert feature.reference == expected
    assert feature.labels == ["1", "0"].index(expected)


def test_stars_that_count_from_one_are_read_by_name(bert: Subwords) -> None:
    scheme = classes(bert, ["1", "2", "3", "4", "5"])
    assert [scheme.encode(row(text="ada", label=stars), 0)[0].labels for stars in (1, 5)] == [0, 4]


def test_a_number_that_is_no_name_beside_names_that_are_numbers_is_refused(bert: Subwords) -> None:
    with pytest.raises(DataError, match=r"holds 0, which is not in 'labels.names', whose names are numbers") as info:
        classes(bert, ["1", "2"]).encode(row(text="ada", label=0), 0)
    assert 'map the values of the data to names: {"0": 1, "1": 2}' in str(info.value)


def test_a_value_that_a_mapping_of_names_lacks(bert: Subwords) -> None:
    scheme = classes(bert, {"0": "no", "1": "yes"})
    with pytest.raises(DataError, match=r"label '7' in column 'label' is not in 'labels.names'\n  hint: known: 0, 1$"):
        scheme.encode(row(text="ada", label=7), 0)
    many = classes(bert, {f"kind-{number}": f"k{number}" for number in range(30)})
    with pytest.raises(DataError, match="hint: add it to the mapping, or leave such rows out with 'where'"):
        many.encode(row(text="ada", label="other"), 0)


@pytest.mark.parametrize("value", [2, "2"])
def test_a_choices_name_that_is_a_number_is_that_choice(bert: Subwords, value: Any) -> None:
    section = {
        "input": {"text": "{text}", "choices": ["{one}", "{two}"], "max_length": 16},
        "labels": {"scheme": "choices", "column": "label", "names": ["2", "1"]},
    }
    [feature] = build_scheme(task_of(section), bert, []).encode(row(text="ada", one="in", two="rome", label=value), 0)
    assert feature.labels == 0


@pytest.fixture
def shifted(tmp_path: Path) -> Subwords:
    """A tokenizer that puts a blank of its own into words that have none, as RobBERT's does."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Punctuation()]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the rain in paris met ada there who fell what"] * 20, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return Subwords(PreTrainedTokenizerFast(tokenizer_object=backend, **names), 60)


def test_offsets_that_lose_a_words_first_character_are_put_right(shifted: Subwords) -> None:
    context = "The rain in paris met ada there."
    [window] = shifted.encode_windows("who met ada?", context, 4)
    pieces = [context[start:end] for start, end in (span for span in window.spans if span is not None)]
    assert "".join(pieces) == context.replace(" ", "")
    section = {
        "input": {"question": "{q}", "context": "{c}", "max_length": 60, "stride": 4},
        "labels": {"scheme": "start_end", "column": "a"},
    }
    answer = {"text": ["ada"], "answer_start": [context.index("ada")]}
    scheme = build_scheme(task_of(section), shifted, [])
    [feature] = scheme.encode(row(q="who?", c=context, a=answer), 0)
    assert isinstance(feature.labels, tuple)
    first, last = (feature.notes.spans[position] for position in feature.labels)
    assert context[first[0] : last[1]] == "ada"


def test_blanks_around_an_answer_are_scored_and_not_trained(bert: Subwords) -> None:
    section = {
        "input": {"question": "{q}", "context": "{c}", "max_length": 24, "stride": 4},
        "labels": {"scheme": "start_end", "column": "a"},
    }
    context = "ada met alan in paris"
    answer = {"text": [" alan "], "answer_start": [context.index(" alan")]}
    [feature] = build_scheme(task_of(section), bert, []).encode(row(q="who?", c=context, a=answer), 0)
    assert isinstance(feature.labels, tuple)
    first, last = (feature.notes.spans[position] for position in feature.labels)
    assert context[first[0] : last[1]] == "alan"
    assert feature.reference == (" alan ",)


def test_squads_layout_without_titles_with_numbers_as_ids_and_more_keys(tmp_path: Path) -> None:
    answer = {"answer_id": 9, "text": "1871", "answer_start": 30}
    questions = [
        {"id": 4711, "question": "When?", "is_impossible": False, "answers": [answer]},
        {"question": "When?", "answers": [answer]},
    ]
    context = "The harbour of Lund opened in 1871."
    data = {"data": [{"document_id": 1, "paragraphs": [{"context": context, "qas": questions}]}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    found = list(read_rows(tmp_path / "a.json", SquadSource(source="squad", splits=SPLITS)))
    assert [each.values["id"] for each in found] == ["4711", "2"]
    assert found[0].values["title"] == ""


@pytest.mark.parametrize(
    ("encoding", "form", "written"),
    [
        ("iob2", "B-PER", "B-PER I-PER O B-LOC"),
        ("iob2", "B_PER", "B_PER I_PER O B_LOC"),
        ("iob2", "PER-B", "PER-B PER-I O LOC-B"),
        ("iob2", "PER_B", "PER_B PER_I O LOC_B"),
        ("bmes", "B-PER", "B-PER E-PER O S-LOC"),
        ("bilou", "B-PER", "B-PER L-PER O U-LOC"),
        ("iobes", "PER-B", "PER-B PER-E O LOC-S"),
        ("iob1", "B_PER", "I_PER I_PER O I_LOC"),
        ("io", "B-PER", "PER PER O LOC"),
        ("io", "B-PER", "I-PER I-PER O I-LOC"),
    ],
)
def test_every_style_of_tags_becomes_iob2(encoding: Any, form: Any, written: str) -> None:
    assert to_iob2(written.split(), encoding, form) == ["B-PER", "I-PER", "O", "B-LOC"]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("B-PER M-PER E-PER", "encoding: bmes"),
        ("PER-B PER-I O", 'form: "PER-B"'),
        ("B_PER I_PER O", 'form: "B_PER"'),
        ("PER PER O", "encoding: io"),
        ("B-PER L-PER U-LOC", "encoding: bilou"),
    ],
)
def test_a_style_that_the_task_does_not_say_is_named_with_the_tags_that_were_seen(
    bert: Subwords, written: str, hint: str
) -> None:
    task = task_of({"input": WORDS, "labels": {"scheme": "iob2", "column": "tags", "names": ["PER", "LOC"]}})
    with pytest.raises(DataError) as info:
        build_scheme(task, bert, []).encode(row(tokens=["ada"] * 3, tags=written.split()), 0)
    assert "look like labels: {" + hint in str(info.value)
    assert written.split()[0] in str(info.value)


def test_types_are_found_in_tags_of_another_style(bert: Subwords) -> None:
    task = task_of({"input": WORDS, "labels": {"scheme": "iob2", "column": "tags", "encoding": "io"}})
    rows = [row(tokens=["ada", "met", "rome"], tags=["PER", "O", "LOC"])]
    scheme = build_scheme(task, bert, rows)
    assert scheme.names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert scheme.encode(rows[0], 0)[0].reference == ("B-PER", "O", "B-LOC")


NUMBERED = {"0": "O", "1": "B-PER", "2": "I-PER"}


def test_numbers_as_tags_have_names_in_the_task(bert: Subwords) -> None:
    labels = {"scheme": "iob2", "column": "tags", "names": NUMBERED}
    task = task_of({"input": WORDS, "labels": labels})
    scheme = build_scheme(task, bert, [])
    assert scheme.names == ("O", "B-PER", "I-PER")
    [feature] = scheme.encode(row(tokens=["ada", "met", "alan"], tags=[1, 0, 1]), 0)
    assert feature.reference == ("B-PER", "O", "B-PER")
    with pytest.raises(DataError, match=r"holds 3, and 'labels.names' names no tag for it"):
        scheme.encode(row(tokens=["ada"], tags=[3]), 0)
    plain = task_of({"input": WORDS, "labels": {**labels, "names": ["PER"]}})
    with pytest.raises(DataError, match=r"name the tag of each number in labels.names"):
        build_scheme(plain, bert, []).encode(row(tokens=["ada"], tags=[1]), 0)


def parquet(path: Path, column: str, values: list[Any], feature: dict[str, Any]) -> None:
    """A file as `datasets` writes it, with the names of its class labels."""
    table = pa.table({column: values, "text": ["ada"] * len(values), "tokens": [["ada", "met"]] * len(values)})
    about = json.dumps({"info": {"features": {column: feature}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": about}), path)


def test_class_labels_of_a_parquet_file_have_the_files_names(bert: Subwords, tmp_path: Path) -> None:
    sentiment = {"_type": "ClassLabel", "names": ["neg", "pos"]}
    parquet(tmp_path / "a.parquet", "label", [0, 1], sentiment)
    tags = {"_type": "List", "feature": {"_type": "ClassLabel", "names": ["O", "B-PER", "I-PER"]}}
    parquet(tmp_path / "b.parquet", "tags", [[1, 0], [0, 0]], tags)

    def read(name: str, section: dict[str, Any]) -> list[Row]:
        splits = {"train": name, "validation": name}
        task = task_of(section, data={"source": "parquet", "splits": splits})
        return list(read_split(task, "train", task_path=tmp_path / "t.yaml", data_root=None).rows)

    def labels(names: Any) -> dict[str, Any]:
        return {"input": TEXT, "labels": {"scheme": "classes", "column": "label", "names": names}}

    assert [each.values["label"] for each in read("a.parquet", labels("from_train"))] == ["neg", "pos"]
    # The positive class first: the file's own names keep what a position would exchange.
    assert [each.values["label"] for each in read("a.parquet", labels(["pos", "neg"]))] == ["neg", "pos"]
    assert [each.values["label"] for each in read("a.parquet", labels(["bad", "good"]))] == [0, 1]
    spans = {"input": WORDS, "labels": {"scheme": "iob2", "column": "tags"}}
    assert [each.values["tags"] for each in read("b.parquet", spans)] == [["B-PER", "O"], ["O", "O"]]


def test_tables_with_another_delimiter_or_quote(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufefftext;label\n'Good; really good';pos\nbad;neg\n", encoding="utf-8")
    with pytest.raises(DataError, match="the header is one column, 'text;label'") as info:
        list(read_rows(path, TableSource(source="csv", splits=SPLITS)))
    assert 'set data.delimiter: ";"' in str(info.value)
    source = TableSource(source="csv", splits=SPLITS, delimiter=";", quote="'")
    assert [each.values["text"] for each in read_rows(path, source)] == ["Good; really good", "bad"]


def test_a_json_array_is_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n {"text": "ada"},\n {"text": "alan"}\n]\n')
    found = list(read_rows(path, JsonlSource(source="jsonl", splits=SPLITS)))
    assert [(each.values["text"], each.location) for each in found] == [
        ("ada", f"{path}: row 1"),
        ("alan", f"{path}: row 2"),
    ]
    path.write_text('[{"text": "ada"},\n 3')
    with pytest.raises(DataError, match=r"a\.json:2: error: not JSON"):
        list(read_rows(path, JsonlSource(source="jsonl", splits=SPLITS)))


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("zip", "this is a zip archive"), ("utf-16", "this is UTF-16"), ("parquet", "set 'data.source: parquet'")],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, kind: str, hint: str) -> None:
    path = tmp_path / "a.csv"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.csv", "text,label\n" * 99)
    elif kind == "utf-16":
        path.write_text("text,label\nada,a\n", encoding="utf-16")
    else:
        pq.write_table(pa.table({"text": ["é" * 50]}), path)
    with pytest.raises(DataError) as info:
        list(read_rows(path, TableSource(source="csv", splits=SPLITS)))
    assert hint in str(info.value)


def test_document_marks_in_any_column_end_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1 ada B-PER\n\n1 -DOCSTART- O\n\n1 alan B-PER\n1 -DOCSTART- O\n1 rome B-LOC\n")
    source = ConllSource(source="conll", splits=SPLITS, columns={"tokens": 1, "tags": 2})
    assert [each.values["tokens"] for each in read_rows(path, source)] == [["ada"], ["alan"], ["rome"]]


def test_a_bad_sentence_is_one_fault_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ada\tB-PER\n\n\tO\nmet\tO\nin\n\nrome\tB-LOC\n\nleft\n")
    columns = {"tokens": 0, "tags": 1}
    source = ConllSource(source="conll", splits=SPLITS, columns=columns, separator="tab")
    faults: list[str] = []
    found = list(read_rows(path, source, lambda error: faults.append(str(error))))
    assert [each.values["tokens"] for each in found] == [["ada"], ["rome"]]
    assert len(faults) == 2
    assert "a.txt:3: error: column 'tokens' is empty" in faults[0]
    assert "a.txt:9" in faults[1]


def test_an_empty_text_is_one_token_where_the_tokenizer_adds_none(tmp_path: Path) -> None:
    tokenizer = save_tokenizer("bare", tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    scheme = classes(Subwords(tokenizer, 12), ["a", "b"])
    [feature] = scheme.encode(row(text="", label="a"), 0)
    assert feature.inputs[0].ids == (tokenizer.pad_token_id,)


def test_a_token_without_an_embedding_is_an_error_of_its_row(bert: Subwords, tokenizers: dict[str, Path]) -> None:
    tokenizer = BertTokenizer.from_pretrained(tokenizers["bert"])
    lacking = "rome"
    short = Subwords(tokenizer, 24, "masks", vocabulary=tokenizer.convert_tokens_to_ids(lacking))
    scheme = classes(short, ["a", "b"])
    with pytest.raises(DataError, match=r"a\.jsonl:1: error: the token '.*' has id .*, but the backbone has"):
        scheme.encode(row(text=lacking, label="a"), 0)
    with pytest.raises(UnusableTokenError):
        short.encode_windows("is it?", f"ada {lacking}", 2)


def test_a_row_that_would_fill_memory_is_refused(bert: Subwords, tmp_path: Path) -> None:
    scheme = classes(bert, ["a", "b"])
    with pytest.raises(DataError, match=r"holds 1,000,001 characters. Expected 1,000,000 or fewer"):
        scheme.encode(row(text="a" * (LONGEST_TEXT + 1), label="a"), 0)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ada"}\n{"text": "' + "a" * (1 << 24) + '"}\n{"text": "alan"}\n')
    faults: list[str] = []
    found = list(read_rows(path, JsonlSource(source="jsonl", splits=SPLITS), lambda error: faults.append(str(error))))
    assert [each.values["text"] for each in found] == ["ada", "alan"]
    assert "a.jsonl:2: error: the line has 16," in faults[0]


BAD_ROWS = """{"text": "ada met alan", "label": "a"}
not json
{"text": "rome", "label": "b"}
{"label": "b"}
{"text": "paris", "label": "other"}
{"text": "ada", "label": "a"}
"""
BAD_TASK = """task: bad
data: {source: jsonl, splits: {train: rows.jsonl, validation: rows.jsonl}, on_fault: skip}
input: {text: "{text}", max_length: 16}
labels: {scheme: classes, column: label, names: [a, b]}
"""


@pytest.fixture
def bad_rows(tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(BAD_ROWS)
    (tmp_path / "bad.yaml").write_text(BAD_TASK)
    (tmp_path / "recipe.yaml").write_text(
        f"recipe: bad\ntask: bad.yaml\nbackbone: {{name: {backbone}}}\nprompt: {{length: 2}}\n"
        "train: {epochs: 1, batch_size: 2, learning_rate: 0.01}\n"
    )
    return tmp_path


def test_malformed_rows_are_left_out_and_counted(bad_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe.yaml"]) == 0
    assert "train: 3 malformed rows were left out, first rows.jsonl:2: not JSON" in capsys.readouterr().err
    [folder] = bad_rows.glob("runs/bad/*")
    results = json.loads((folder / "results.json").read_text())
    assert results["skipped_rows"] == {"train": 3, "validation": 3}
    predictions = [json.loads(line) for line in (folder / "predictions/validation.jsonl").read_text().splitlines()]
    assert [Path(each["location"]).name for each in predictions] == ["rows.jsonl:1", "rows.jsonl:3", "rows.jsonl:6"]
    assert main(["validate", "bad.yaml", "--data", "--backbone", str(bad_rows / "none")]) != 0
    capsys.readouterr()


def test_without_saying_so_a_malformed_row_ends_the_run(bad_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bad_rows / "bad.yaml").write_text(BAD_TASK.replace(", on_fault: skip", ""))
    assert main(["run", "recipe.yaml"]) == 3
    assert "rows.jsonl:2: error: not JSON" in capsys.readouterr().err
    assert not list(bad_rows.glob("runs/bad/*"))


def test_a_split_without_a_whole_row_is_an_error(bad_rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bad_rows / "rows.jsonl").write_text('{"label": "a"}\n')
    assert main(["run", "recipe.yaml"]) == 3
    assert "no column 'text'" in capsys.readouterr().err


def test_validate_says_what_no_model_can_learn(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"tokens": ["ada", "\u200b", "漢字"], "tags": ["O", "B-PER", "O"]},
        {"tokens": ["ada"], "tags": ["B-PER"]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    data = "data: {source: jsonl, splits: {train: a.jsonl, validation: a.jsonl}}\n"
    (tmp_path / "tags.yaml").write_text(
        f"task: tags\n{data}input: {{words: tokens, max_length: 16}}\nlabels: {{scheme: iob2, column: tags}}\n"
    )
    assert main(["validate", "tags.yaml", "--data", "--json", "--backbone", str(backbone)]) == 0
    [train, _] = json.loads(capsys.readouterr().out)["files"][0]["splits"]
    assert train["unreachable"] == 1
    assert train["unknown"] == 2
    (tmp_path / "a.jsonl").write_text('{"text": "ada", "label": "yes "}\n{"text": "alan", "label": "yes"}\n')
    (tmp_path / "blanks.yaml").write_text(
        f'task: blanks\n{data}input: {{text: "{{text}}"}}\nlabels: {{scheme: classes, column: label}}\n'
    )
    assert main(["validate", "blanks.yaml", "--data", "--json", "--backbone", str(backbone)]) == 0
    [train, _] = json.loads(capsys.readouterr().out)["files"][0]["splits"]
    assert train["alike"] == ["'yes ' and 'yes'"] or train["alike"] == ["'yes' and 'yes '"]
