"""The task files that come along, on real rows and on samples of the corpora's layouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import BertTokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from ptv2kit.data.rows import Row
from ptv2kit.data.schemes import build_scheme
from ptv2kit.data.schemes.base import LabelScheme
from ptv2kit.data.schemes.records import Feature, Prediction
from ptv2kit.data.sources import read_split
from ptv2kit.data.tokens import Subwords
from ptv2kit.spec.load import load_task
from ptv2kit.spec.task import AnyTask, Iob2Task

TASKS = Path(__file__).parents[2] / "tasks"


def read(name: str, data_root: Path, split: str = "train") -> tuple[AnyTask, tuple[Row, ...]]:
    resolved = load_task(TASKS / f"{name}.yaml")
    return resolved.task, read_split(resolved.task, split, task_path=resolved.path, data_root=data_root).rows


@pytest.fixture(scope="module")
def bert(shared: Path) -> BertTokenizer:
    return BertTokenizer(str(shared / "tokenizers" / "bert-large-uncased" / "vocab.txt"))


@pytest.fixture(scope="module")
def roberta(shared: Path) -> RobertaTokenizer:
    folder = shared / "tokenizers" / "roberta-large"
    return RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True)


@pytest.fixture(scope="module")
def corpora(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The samples, placed where the task files look for the corpora."""
    root, samples = tmp_path_factory.mktemp("corpora"), shared / "data" / "format_samples"
    places = {
        "conll03/train.txt": ["conll03/train.txt", "conll03/valid.txt", "conll03/test.txt"],
        "conll04/train.txt": ["conll04/train.txt", "conll04/dev.txt", "conll04/test.txt"],
        "ontonotes_ner/train.sd.conllx": [f"ontonotes5/{name}.sd.conllx" for name in ("train", "development", "test")],
        "conll12/sample.gold_conll": [f"conll12/{name}/x/s.v4_gold_conll" for name in ("train", "development", "test")],
        "propbank_release/sample.gold_conll": [
            f"propbank/{name}/x/s.gold_conll" for name in ("train", "development", "test")
        ],
        **{
            f"conll05/train.{kind}": [
                f"conll05/{name}/{kind}/s.{kind}" for name in ("train", "devel", "test.wsj", "test.brown")
            ]
            for kind in ("words", "props")
        },
        **{
            f"superglue/{name}/train.jsonl": [f"{name}/train.jsonl", f"{name}/val.jsonl"]
            for name in ("MultiRC", "ReCoRD", "WSC")
        },
        **{
            f"superglue/{folder}/train.jsonl": [f"{name}/train.jsonl", f"{name}/validation.jsonl"]
            for folder, name in (("BoolQ", "boolq"), ("CB", "cb"), ("COPA", "copa"), ("RTE", "rte"), ("WiC", "wic"))
        },
    }
    for source, targets in places.items():
        for target in targets:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(samples / source, root / target)
    return root


def encoded(
    name: str, data_root: Path, tokenizer: PreTrainedTokenizerBase, rows: int = 50
) -> tuple[LabelScheme, list[Feature]]:
    task, found = read(name, data_root)
    scheme = build_scheme(task, Subwords(tokenizer, task.input.max_length), found)
    return scheme, [feature for index, row in enumerate(found[:rows]) for feature in scheme.encode(row, index)]


def texts(tokenizer: PreTrainedTokenizerBase, feature: Feature) -> list[str]:
    return [tokenizer.decode(encoding.ids) for encoding in feature.inputs]


# What the official code feeds BERT, after its own formatting, for the first row of the data.
INPUTS = {
    "boolq": ["[CLS] is the harbour bell older than the lighthouse [SEP] harbour bell - - the harbour bell was cast"],
    "cb": ["[CLS] a : i looked for the ledger. b : and? a : i do not think that anyone had signed it. [SEP] someone"],
    "copa": [
        "[CLS] the lamp went out. because [SEP] the oil ran dry. [SEP]",
        "[CLS] the lamp went out. because [SEP] the window was painted. [SEP]",
    ],
    "rte": ["[CLS] the mill closed in 1975 after a flood. [SEP] a flood came before the mill closed. [SEP]"],
    "wic": [
        "[CLS] she rowed to the bank. the bank refused the loan. does bank have the same meaning in both sentences? "
        "[SEP]"
    ],
    "wic_pair": ["[CLS] bank : she rowed to the bank. [SEP] bank : the bank refused the loan. [SEP]"],
    "wsc_release": ["[CLS] she : nell thanked ruth because she had fixed the roof. [SEP] ruth [SEP]"],
    "multirc_release": [
        "[CLS] ana planted beans in april. in june her brother picked them and cooked soup. [SEP] "
        "who used the beans? ana ' s brother [SEP]"
    ],
    "record_release": [
        "[CLS] orla finch opened a bakery in dunmore last week. - orla finch had worked in leeds before - dunmore had "
        "no bakery for years [SEP] neighbours in orla finch said they had waited long for fresh bread [SEP]"
    ],
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_those_of_the_official_code(name: str, corpora: Path, bert: BertTokenizer) -> None:
    _, features = encoded(name, corpora, bert)
    for found, expected in zip(texts(bert, features[0]), INPUTS[name], strict=True):
        assert found.startswith(expected)


def test_labels_of_the_release_files(corpora: Path, bert: BertTokenizer) -> None:
    expected = {
        "boolq": ["yes", "no"],
        "cb": ["contradiction", "entailment", "neutral"],
        "copa": ["0", "1"],
        "wsc_release": ["yes", "no"],
        "multirc_release": ["right", "wrong", "right", "wrong", "right"],
        "record_release": ["wrong", "right", "wrong"],
    }
    for name, labels in expected.items():
        assert [feature.reference for feature in encoded(name, corpora, bert)[1]] == labels


def test_record_and_multirc_are_scored_by_group(corpora: Path, bert: BertTokenizer) -> None:
    scheme, features = encoded("record_release", corpora, bert)
    assert [feature.notes.candidate for feature in features] == ["Orla Finch", "Dunmore", "Leeds"]
    assert {feature.notes.golds for feature in features} == {("Dunmore", "Dunmore")}
    ranked = [
        Prediction(f.row, "wrong", 0.5, f.reference, score, notes=f.notes)
        for f, score in zip(features, (1, 3, 2), strict=True)
    ]
    assert scheme.score(ranked).values == {"record_f1": 100.0, "record_exact_match": 100.0}
    scheme, features = encoded("multirc_release", corpora, bert)
    assert [feature.notes.group for feature in features] == ["0-0", "0-0", "0-1", "0-1", "0-1"]
    always = [Prediction(f.row, "right", 0.5, f.reference, notes=f.notes) for f in features]
    assert scheme.score(always).values["multirc_f1a"] == pytest.approx(75.0)
    assert scheme.score(always).values["multirc_exact_match"] == 0.0


def test_wsc_marks_the_pronoun(shared: Path, bert: BertTokenizer) -> None:
    _, rows = read("wsc_marked", shared / "data", "validation")
    for row in rows:
        marked = row.text("marked").split()
        assert marked[row.integer("span2_index")].startswith("*")
        assert sum(word.startswith("*") and word.endswith("*") for word in marked) == 1


@pytest.mark.parametrize(
    ("name", "splits", "rows"),
    [
        ("conll03", ["train", "validation", "test"], 2),
        ("conll04", ["train", "validation", "test"], 1),
        ("ontonotes5", ["train", "validation", "test"], 1),
        ("conll05", ["train", "validation", "test_wsj", "test_brown"], 2),
        ("conll12", ["train", "validation", "test"], 2),
        ("propbank", ["train", "validation", "test"], 2),
    ],
)
def test_corpora_are_found_and_encoded(
    name: str, splits: list[str], rows: int, corpora: Path, bert: BertTokenizer
) -> None:
    task, _ = read(name, corpora)
    assert list(task.data.splits.by_name()) == splits
    for split in splits:
        assert len(read(name, corpora, split)[1]) == rows
    scheme, features = encoded(name, corpora, bert)
    assert "O" in scheme.names
    assert any(tag.startswith("B-") for feature in features for tag in feature.reference)


def test_the_original_conll03_tags_become_iob2(corpora: Path, bert: BertTokenizer) -> None:
    _, features = encoded("conll03", corpora, bert)
    assert features[0].reference == ("B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O")
    assert features[1].reference[:2] == ("B-ORG", "B-ORG")


def test_the_verb_is_appended_and_never_scored(corpora: Path, bert: BertTokenizer, roberta: RobertaTokenizer) -> None:
    task, rows = read("conll05", corpora)
    assert isinstance(task, Iob2Task)
    for tokenizer, expected in (
        (bert, "[CLS] tamsin oakes tried to sell the mill. [SEP] tried [SEP]"),
        (roberta, "<s> Tamsin Oakes tried to sell the mill .</s> tried</s>"),
    ):
        [feature] = build_scheme(task, Subwords(tokenizer, 64), rows).encode(rows[0], 0)
        [encoding] = feature.inputs
        assert tokenizer.decode(encoding.ids) == expected
        assert not any(encoding.segments or ())
        assert isinstance(feature.labels, tuple)
        scored = [position for position, label in enumerate(feature.labels) if label >= 0]
        separator = encoding.ids.index(tokenizer.sep_token_id)
        assert len(scored) == 8
        assert max(scored) < separator


def test_the_verb_is_never_cut_off(corpora: Path, bert: BertTokenizer) -> None:
    task, rows = read("conll05", corpora)
    [feature] = build_scheme(task, Subwords(bert, 8), rows).encode(rows[1], 0)
    assert feature.truncated
    assert len(feature.inputs[0].ids) == 8
    assert bert.decode(feature.inputs[0].ids).endswith("[SEP] sell [SEP]")
    assert feature.notes == (1, 3, -1, -1, -1, -1, -1, -1)  # two words are left of eight


def test_the_official_separator_of_roberta_can_be_had(corpora: Path, roberta: RobertaTokenizer) -> None:
    task, rows = read("conll05", corpora)
    assert isinstance(task, Iob2Task)
    assert task.input.append is not None
    append = task.input.append.model_copy(update={"separator": "[SEP]"})
    official = task.model_copy(update={"input": task.input.model_copy(update={"append": append})})
    [feature] = build_scheme(official, Subwords(roberta, 64), rows).encode(rows[0], 0)
    words = [*rows[0].words("tokens"), "[SEP]", "tried"]
    assert list(feature.inputs[0].ids) == roberta(words, is_split_into_words=True)["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("boolq", "cb", "copa", "multirc", "rte", "wic", "wic_pair", "wsc", "wsc_marked", "sst2", "squad", "squad_v2"),
        *("srl_ewt", "wnut17", "wikigold", "uner_ewt"),
    ],
)
def test_real_rows_encode(name: str, shared: Path, bert: BertTokenizer) -> None:
    scheme, features = encoded(name, shared / "data", bert)
    assert len(features) >= 50
    batch = scheme.collate(features[:4])
    assert batch.input_ids.shape[0] == 4 * len(features[0].inputs)
    assert batch.labels.shape[0] == 4


def test_squad_targets_are_the_answers(shared: Path, bert: BertTokenizer) -> None:
    _, features = encoded("squad", shared / "data", bert, rows=200)
    exact = 0
    for feature in features:
        assert isinstance(feature.labels, tuple)
        if feature.labels != (0, 0):
            first, last = (feature.notes.spans[position] for position in feature.labels)
            exact += feature.notes.text[first[0] : last[1]] == feature.reference[0]
            assert feature.reference[0] in feature.notes.text[first[0] : last[1]]
    assert exact / len(features) > 0.95
