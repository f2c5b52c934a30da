"""Models and data sets of a hub, over HTTP: what the first command on a machine with a network does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest

from tests.hub_server import serving

pytestmark = pytest.mark.slow
Command = Callable[..., tuple[int, str, str]]
SENTENCES = {"a fine film": 1, "a dull film": 0, "fine and moving": 1, "dull and long": 0}


@pytest.fixture(scope="module")
def command(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Runs the command in an empty folder, with an empty cache, beside a hub with one model and one data set."""
    root, home, folder = (tmp_path_factory.mktemp(name) for name in ("hub", "home", "work"))
    shutil.copytree(backbone, root / "models" / "ada" / "tiny")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = [{"text": f"{text} {number}", "label": label} for number in range(10) for text, label in SENTENCES.items()]
    for split in ("train", "validation"):
        path = root / "datasets" / "ada" / "films" / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    with serving(root) as address:

        def command(*words: str) -> tuple[int, str, str]:
            online = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
            process = subprocess.run(
                [sys.executable, "-m", "ptv2kit", *words],
                cwd=folder,
                env={**os.environ, **online},
                capture_output=True,
                text=True,
                check=False,
            )
            return process.returncode, process.stdout, process.stderr

        yield command


def test_a_data_set_and_a_model_of_the_hub(command: Command) -> None:
    code, out, err = command("new", "task", "ada/films")
    assert code == 0, err
    assert "films.yaml: scheme classes" in out
    code, out, err = command("new", "recipe", "films.yaml", "--backbone", "ada/tiny", "--to", "recipe.yaml")
    assert code == 0, err
    words = ("run", "recipe.yaml", "train.epochs=1", "train.max_length=16")
    code, out, err = command(*words)
    assert code == 0, err
    assert "train: 40 rows from hub:ada/films:train" in err
    assert "the weights of backbone 'ada/tiny' are loaded from the hub" in err
    code, out, err = command(*words)
    assert code == 0, err
    assert "are loaded from the hub" not in err, "they are in the cache"


@pytest.mark.night
def test_what_the_hub_refuses_is_said_with_what_can_be_done(command: Command) -> None:
    code, _, err = command("plan", "quickstart", "backbone.name=ada/gated-model")
    assert code == 3
    assert "backbone 'ada/gated-model' is gated: the hub gives it only to accounts that were granted access" in err
    assert "ask for access at https://huggingface.co/ada/gated-model; then 'hf auth login'" in err
    code, _, err = command("plan", "quickstart", "backbone.name=ada/nothing")
    assert code == 3
    assert "a private model needs 'hf auth login'" in err
    code, _, err = command("predict", "hub:ada/nothing", "films.yaml")
    assert code == 3
    assert "hub:ada/nothing: error: the hub has nothing of this name, or does not show it to you" in err
