"""Fixtures that several test files share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import seqeval.metrics  # noqa: F401 - scoring imports both for the first time, which is not a test's time limit to pay
import sklearn.metrics  # noqa: F401
import torch
from huggingface_hub import constants
from transformers import BertConfig, BertModel, BertTokenizer

from ptv2kit import machine
from tests.backbones_page import BackbonesPage

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "alan", "met", "paris", "rome", "in", "left", "for"]
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backbones-page", metavar="PATH", help="write the table of supported backbones there")


def pytest_configure(config: pytest.Config) -> None:
    # Sums come out in another order with another number of threads, and some tests ask for equal bits in two processes.
    torch.set_num_threads(1)
    if config.getoption("--backbones-page"):
        config.pluginmanager.register(BackbonesPage(Path(config.getoption("--backbones-page"))))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test keeps for later runs goes to the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PTV2KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def hub_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the hub did not answer in one test is not known in the next."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
    monkeypatch.setenv("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
    machine._asked.cache_clear()


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A hub that does not answer: for each time that it was asked, how long it was waited for."""
    asked: list[float] = []

    class Session:
        def head(self, address: str, *, timeout: float, follow_redirects: bool) -> None:
            asked.append(timeout)
            raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden numbers and real data that lies beside a developer's checkout."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared with golden numbers and real data is not here")
    return SHARED


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("backbone")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of people and places; the data lies beside it."""
    folder = tmp_path_factory.mktemp("task")
    rows = [
        {"words": [person, verb, *rest, place], "tags": ["B-PER", "O", *["O"] * len(rest), "B-LOC"]}
        for person in ("ada", "alan")
        for place in ("paris", "rome")
        for verb, rest in (("met", ["ada", "in"]), ("left", ["for"]), ("left", []))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "task.yaml"
