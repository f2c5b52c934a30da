"""The quickstart data is what its generator writes, well formed, and cannot be solved by memorising words."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2

FOLDER = Path(__file__).resolve().parents[1] / "tasks" / "quickstart"
TYPES = {"PERSON", "PLACE", "VESSEL", "COMPANY", "TIME"}


@dataclass(frozen=True)
class Row:
    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.tokens).lower()

    @property
    def mentions(self) -> list[tuple[str, str]]:
        """Pairs of entity type and lower-cased surface form."""
        return [
            (entity_type, " ".join(self.tokens[start : end + 1]).lower())
            for entity_type, start, end in get_entities(list(self.tags))
        ]


def read_split(split: str) -> list[Row]:
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    objects = [json.loads(line) for line in lines]
    assert all(set(row) == {"id", "tokens", "tags"} for row in objects)
    return [Row(row["id"], tuple(row["tokens"]), tuple(row["tags"])) for row in objects]


@pytest.fixture(scope="module")
def train() -> list[Row]:
    return read_split("train")


@pytest.fixture(scope="module")
def validation() -> list[Row]:
    return read_split("validation")


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("quickstart_generate", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses looks its own module up there
    spec.loader.exec_module(module)
    return module


def test_generator_reproduces_the_committed_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER / "generate.py", "--out", tmp_path / "new"], check=True)
    for name in ("train.jsonl", "validation.jsonl"):
        assert (tmp_path / "new" / name).read_bytes() == (FOLDER / name).read_bytes()


def test_another_seed_gives_other_sentences(generator: ModuleType, train: list[Row]) -> None:
    other = {" ".join(sentence.tokens).lower() for sentence in generator.make_splits(12)["train"]}
    assert len(other & {row.text for row in train}) < len(other) / 5


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_are_well_formed_iob2(split: str) -> None:
    rows = read_split(split)
    assert [row.id for row in rows] == [f"{split}-{number:04}" for number in range(1, len(rows) + 1)]
    for row in rows:
        assert len(row.tokens) == len(row.tags), row.id
        assert 4 <= len(row.tokens) <= 40, row.id
        assert all(token and not set(token) & set(" ()|$\t") for token in row.tokens), row.id
        for previous, tag in zip(("O", *row.tags), row.tags, strict=False):
            if tag != "O":
                prefix, entity_type = tag.split("-")
                assert entity_type in TYPES, row.id
                assert prefix == "B" or previous in (f"B-{entity_type}", f"I-{entity_type}"), row.id


def test_sizes(train: list[Row], validation: list[Row]) -> None:
    assert (len(train), len(validation)) == (700, 250)
    assert sum((FOLDER / f"{split}.jsonl").stat().st_size for split in ("train", "validation")) < 400_000


def test_no_sentence_occurs_twice(train: list[Row], validation: list[Row]) -> None:
    counts = Counter(row.text for row in (*train, *validation))
    assert [text for text, count in counts.items() if count > 1] == []


def test_every_type_is_frequent_in_validation(validation: list[Row]) -> None:
    counts = Counter(entity_type for row in validation for entity_type, _ in row.mentions)
    assert set(counts) == TYPES
    assert min(counts.values()) >= 60


def test_rows_without_and_with_several_mentions(train: list[Row], validation: list[Row]) -> None:
    for rows in (train, validation):
        counts = Counter(min(len(row.mentions), 3) for row in rows)
        assert all(counts[number] >= 5 for number in range(4))


def test_most_validation_mentions_have_a_new_surface_form(train: list[Row], validation: list[Row]) -> None:
    seen = {form for row in train for _, form in row.mentions}
    forms = [form for row in validation for _, form in row.mentions]
    assert sum(form not in seen for form in forms) / len(forms) >= 0.6


def test_one_surface_form_has_several_types(train: list[Row]) -> None:
    types: defaultdict[str, set[str]] = defaultdict(set)
    for row in train:
        for entity_type, form in row.mentions:
            types[form].add(entity_type)
    assert {"PERSON", "PLACE", "VESSEL", "COMPANY"} <= types["morgan"]
    assert {"PERSON", "TIME"} <= types["may"]
    assert sum(len(found) > 1 for found in types.values()) >= 50


def test_words_of_names_also_occur_outside_names(train: list[Row]) -> None:
    tags: defaultdict[str, set[str]] = defaultdict(set)
    for row in train:
        for token, tag in zip(row.tokens, row.tags, strict=True):
            tags[token.lower()].add(tag)
    for word in ("may", "march", "hope", "second", "sunday", "heron"):
        assert {"O"} < tags[word], word


def test_validation_uses_frames_that_train_does_not(generator: ModuleType) -> None:
    splits = generator.make_splits(11)
    frames = {name: Counter(frame for row in rows for frame in row.frames) for name, rows in splits.items()}
    held_out = {*generator.HELD_OUT_CLAUSES, *generator.HELD_OUT_STANDALONE}
    new = set(frames["validation"]) - set(frames["train"])
    assert len(frames["train"]) >= 60
    assert len(new) >= 15
    assert new <= held_out
    assert held_out.isdisjoint(frames["train"])
    assert sum(frames["validation"][frame] for frame in new) / frames["validation"].total() >= 0.1


def test_looking_words_up_does_not_solve_the_task(train: list[Row], validation: list[Row]) -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        for token, tag in zip(row.tokens, row.tags, strict=True):
            counts[token.lower()][tag] += 1
    most_frequent = {token: tags.most_common(1)[0][0] for token, tags in counts.items()}
    predicted = [[most_frequent.get(token.lower(), "O") for token in row.tokens] for row in validation]
    gold = [list(row.tags) for row in validation]
    f1 = f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0)
    assert 0 < f1 < 0.45
