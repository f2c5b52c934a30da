"""`ptv2kit export`: a run's prompt in another library's format."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptv2kit.cli.output import show
from ptv2kit.errors import ConfigError
from ptv2kit.exchange.peft import PeftHead, adapter_config, peft_head, require_peft, to_flat
from ptv2kit.models import lora
from ptv2kit.models.backbones import find_backbone
from ptv2kit.models.checkpoints import silence_libraries
from ptv2kit.training.load_run import LoadedRun, load_run, read_run

if TYPE_CHECKING:
    from torch import Tensor


def run(args: argparse.Namespace) -> int:
    """Export a run.

    Raises:
        ConfigError: this is not a run, PEFT would compute something else, or the target is there already.
        DataError: a file of the run is torn.
    """
    require_new(args.to)
    silence_libraries()
    run: Path = args.folder
    recipe = read_run(run).recipe
    if recipe.method != "lora":
        require_peft(recipe, find_backbone(recipe.backbone))
    loaded = load_run(run, args.task, device="cpu")
    files, facts, line = _lora_files(loaded) if recipe.method == "lora" else _prefix_files(loaded)
    write_folder(args.to, files)
    if args.json:
        show(json.dumps({"to": str(args.to), **facts}, indent=2, ensure_ascii=False))
    else:
        show(f"{args.to}: {line}")
    return 0


def _lora_files(loaded: LoadedRun) -> tuple[dict[str, bytes], dict[str, Any], str]:
    """LoRA's matrices in PEFT's layout and the head beside them; what is said of them as JSON, and in a line."""
    state = loaded.model.inference_state()
    config = lora.adapter_config(loaded.recipe.lora, loaded.model.backbone, loaded.recipe.backbone.name)
    own = {name.removeprefix("head."): tensor for name, tensor in state.items() if name.startswith("head.")}
    files = {
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "adapter_model.safetensors": _save(lora.to_peft(state)),
        "README.md": _readme(loaded, None).encode(),
        **({"head.safetensors": _save(own)} if own else {}),
    }
    facts = {
        "task": loaded.task.task,
        "labels": list(loaded.scheme.names),
        "task_type": config["task_type"],
        "head": "head.safetensors" if own else "backbone",
    }
    return files, facts, f"PEFT adapter (LoRA of rank {loaded.recipe.lora.rank}), head in head.safetensors"


def _prefix_files(loaded: LoadedRun) -> tuple[dict[str, bytes], dict[str, Any], str]:
    """A prompt in PEFT's layout, with the head where PEFT knows it; what is said of them as JSON, and in a line."""
    recipe, model = loaded.recipe, loaded.model
    state = model.inference_state()
    layers = [state[f"prompt.layers.{index}"] for index in range(len(loaded.spec.layers))]
    head = peft_head(loaded.spec, model.head)
    own = {name.removeprefix("head."): tensor for name, tensor in state.items() if name.startswith("head.")}
    tensors: dict[str, Tensor] = {"prompt_embeddings": to_flat(layers)}
    if head is not None:
        tensors |= {f"base_model.{head.module}.{part}": own[f"linear.{part}"] for part in ("weight", "bias")}
    config = adapter_config(loaded.spec, recipe.prompt.length, head)
    files: dict[str, bytes] = {
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "adapter_model.safetensors": _save(tensors),
        "README.md": _readme(loaded, head).encode(),
    }
    if head is None and own:
        files["head.safetensors"] = _save(own)
    facts = {
        "task": loaded.task.task,
        "labels": list(loaded.scheme.names),
        "task_type": config["task_type"],
        "head": "adapter" if head is not None else "head.safetensors" if own else "backbone",
    }
    where = "the backbone's own, of its language model"
    if own:
        where = f"of {head.auto_class}" if head else "in head.safetensors: no class of transformers has it"
    line = f"PEFT adapter ({config['task_type']}), prompt of length {recipe.prompt.length}, head {where}"
    return files, facts, line


def require_new(folder: Path) -> None:
    """Make sure that nothing is overwritten.

    Raises:
        ConfigError: the folder is there and holds something, or a file is in its place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' is there already", hint="choose a new folder")


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write a folder that is whole or not there at all.

    Args:
        folder: new or empty.
        files: content by path within the folder.

    Raises:
        ConfigError: the disk refuses.
    """
    import shutil
    import tempfile

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, content in files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            temporary.chmod(0o755)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"'{folder}' cannot be written: {error.strerror or error}") from error


def _save(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})


def _readme(loaded: LoadedRun, head: PeftHead | None) -> str:
    """How to use the adapter."""
    labels = dict(enumerate(loaded.scheme.names))
    backbone = loaded.recipe.backbone.name
    kind = "LoRA adapter" if loaded.recipe.method == "lora" else "Prefix-tuning adapter of a run of P-Tuning v2"
    lines = [
        f"# {loaded.recipe.recipe}: {loaded.task.task}",
        "",
        f"{kind} for PEFT, written by ptv2kit. Backbone: `{backbone}`.",
        f"Labels: `{json.dumps(labels, ensure_ascii=False)}`",
        "",
        "```python",
        "from peft import PeftModel",
    ]
    if head is not None:
        lines += [
            f"from transformers import {head.auto_class}",
            "",
            f"base = {head.auto_class}.from_pretrained({backbone!r}, num_labels={len(labels)})",
            'model = PeftModel.from_pretrained(base, "this-folder").eval()',
            "logits = model(**batch).logits",
        ]
        if head.task_type == "QUESTION_ANS":
            lines[-2:] = [lines[-2], "start, end = model(**batch).start_logits, model(**batch).end_logits"]
    else:
        pooled = type(loaded.model.head).__name__
        where = f"is in head.safetensors: {pooled} of ptv2kit, which no class of transformers has"
        if loaded.task.head == "verbalizer":
            where = "is the backbone's own, of its language model, with the verbalizer's words"
        lines += [
            "from transformers import AutoModel",
            "",
            f"model = PeftModel.from_pretrained(AutoModel.from_pretrained({backbone!r}), 'this-folder').eval()",
            "hidden = model(**batch).last_hidden_state",
            f"# The head {where}.",
        ]
    return "\n".join([*lines, "```", ""])
