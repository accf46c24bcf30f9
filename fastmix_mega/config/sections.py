"""The sections of a configuration: every key with its type, default and meaning.

`fastmix_mega.config.schema` puts them together; docs/reference.md is made of them.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fastmix_mega.config.base import (
    Name,
    NonNegativeFloat,
    PathText,
    PositiveFloat,
    PositiveInt,
    Section,
    Share,
    TokenCount,
    WholeNumber,
    whole_number,
)
from fastmix_mega.config.constraints import Constraints
from fastmix_mega.config.reuse import ReuseSection


def _switch(value: Any) -> Any:
    """YAML reads a bare on and off as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class SourceConfig(Section):
    """One corpus, already indexed (.bin/.idx)."""

    name: Name
    """Letters, digits and . _ + - only: it appears in files, charts and exports."""
    prefix: PathText | Annotated[list[PathText], Field(min_length=1)]
    """Path without .bin/.idx; a list is one source that is split over several files. As in all
    paths, `~` and `$NAME` are expanded, and relative ones start at the current folder."""

    @field_validator("prefix")
    @classmethod
    def _each_once(cls, value: str | list[str]) -> str | list[str]:
        places = [os.path.normpath(each) for each in value] if isinstance(value, list) else []
        twice = next((each for each in places if places.count(each) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice; its text would count double")
        return value

    @property
    def prefixes(self) -> list[str]:
        return [self.prefix] if isinstance(self.prefix, str) else list(self.prefix)


class TargetConfig(SourceConfig):
    """Text on which the model must be good."""

    weight: PositiveFloat = 1.0
    """Its share of the target loss, relative to the other targets'."""


class RotaryScalingSection(Section):
    """Llama 3's stretching of rotary positions beyond the length of the first training."""

    factor: PositiveFloat
    """By which low frequencies are divided."""
    low_frequency_factor: PositiveFloat = 1.0
    """Wavelengths above original_length / this are stretched in full."""
    high_frequency_factor: PositiveFloat = 4.0
    """Wavelengths below original_length / this are left alone; between the two it is gradual."""
    original_length: PositiveInt = 8192
    """Tokens per sequence in the first training."""

    @model_validator(mode="after")
    def _low_below_high(self) -> RotaryScalingSection:
        if self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError("low_frequency_factor must be below high_frequency_factor")
        return self


class ModelSection(Section):
    """A Llama-like decoder: RMSNorm, SwiGLU, rotary positions, grouped-query attention.

    With `qkv_bias` it is Qwen2's, with `qk_norm` Qwen3's.
    """

    preset: str | None = None
    """A size by name (see `fastmix_mega.model.presets`); the fields below override it."""
    layers: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    attention_heads: PositiveInt | None = None
    key_value_heads: PositiveInt | None = None
    head_size: PositiveInt | None = None
    """Width of one attention head; by default hidden_size / attention_heads."""
    ffn_size: PositiveInt | None = None
    """Width of the SwiGLU's two inner halves, each."""
    tie_embeddings: bool = False
    """One matrix for the input embedding and the head."""
    qkv_bias: bool = False
    """Biases on queries, keys and values."""
    qk_norm: bool = False
    """An RMSNorm of every head's queries and keys."""
    vocab_size: PositiveInt | None = None
    """Rows of the embedding; by default the tokenizer's size, rounded up to a multiple of 128."""
    rotary_base: PositiveFloat = 10000.0
    rotary_scaling: RotaryScalingSection | None = None
    norm_epsilon: PositiveFloat = 1e-5
    init_std: PositiveFloat | None = None
    """Of the matrices; by default sqrt(2 / (5 * hidden_size)), which is 0.02 at a width of 1,000
    and lets narrow proxies learn from the first steps (Nguyen and Salazar, 2019)."""


class ParallelSection(Section):
    """How the model is laid out over processes; data parallelism takes what is left."""

    tensor: PositiveInt = 1
    """Tensor parallelism: processes that share every matrix; keep them within one node."""
    pipeline: PositiveInt = 1
    """Pipeline parallelism: successive stages of the model, by the 1F1B schedule."""
    interleave: PositiveInt = 1
    """Chunks of layers per pipeline stage: more than 1 is the interleaved schedule, with a smaller
    bubble and more communication (needs pipeline > 1)."""
    context: PositiveInt = 1
    """Context parallelism: parts of the same sequence, for long ones."""
    sequence: bool = False
    """Megatron's sequence parallelism (needs tensor > 1): norms and residuals are split too."""
    zero: Literal[1, 2, 3] = 1
    """DeepSpeed's ZeRO stage."""
    timeout_minutes: PositiveFloat = 30.0
    """A collective that takes longer ends the run with an error."""

    def sizes(self, data: int) -> dict[str, int]:
        """The whole layout by name, with so many replicas."""
        own = self.model_dump(exclude={"timeout_minutes"})
        return {"data": data} | {name: int(value) for name, value in own.items()}


class KernelsSection(Section):
    """What computes the model. Results differ by rounding only, and a run may go on under another
    choice; `fastmix check` says which one is taken on the machine where it runs."""

    layers: Literal["auto", "torch", "transformer_engine"] = "auto"
    """transformer_engine: its linear layers and norms, in bf16 also its attention; needs CUDA.
    auto takes it where it can be used."""
    compile: Annotated[Literal["auto", "off", "on"], BeforeValidator(_switch)] = "auto"
    """torch.compile for SwiGLU and the sums with the residual; auto is on with CUDA and off
    without, where a start compiles nothing."""


class ScheduleSection(Section):
    """The learning rate over the run."""

    kind: Literal["cosine", "wsd", "constant"] = "cosine"
    """wsd: warm-up, stable, linear decay over the last `decay` share of the steps."""
    peak: PositiveFloat = 3e-3
    final: Share = 0.1
    """The last step's learning rate as a share of the peak."""
    warmup: WholeNumber = 20
    """Steps of linear warm-up."""
    decay: Share = 0.2
    """wsd only: the share of the steps in which the rate falls."""


class OptimizerSection(Section):
    """AdamW; norms and biases are not decayed."""

    beta1: Share = 0.9
    beta2: Share = 0.95
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1
    clip: NonNegativeFloat = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""


class TrainSection(Section):
    """The training run."""

    steps: PositiveInt
    global_batch: PositiveInt
    """Sequences per optimizer step, over all data-parallel ranks."""
    micro_batch: PositiveInt
    """Sequences per forward pass on one rank."""
    seq_length: Annotated[int, BeforeValidator(whole_number), Field(ge=2, le=10**12)]
    """Tokens per sequence."""
    packing: bool = True
    """Conversations (token files with a loss mask): several to a sequence, without attention from
    one to another; false puts one in each sequence and pads it. Text is not affected."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations that are computed again in the backward pass to save memory: none, those of the
    attention's core, or all but the layers' inputs."""
    schedule: ScheduleSection = ScheduleSection()
    optimizer: OptimizerSection = OptimizerSection()

    @property
    def tokens(self) -> int:
        """Of the whole run."""
        return self.steps * self.global_batch * self.seq_length


BIGRAM = "bigram"
"""Of `search.initial`."""

WARMUP = 24
"""Steps before the first target gradient of a search that does not begin with bigrams."""

SCORED_TEXT = 0.125
"""Share of a text's tokens that the scores look at by default."""


class SearchSection(Section):
    """The mixture search: the outer loop around training. Steps are training steps."""

    every: PositiveInt = 16
    """Training steps between two updates of the mixture (T)."""
    warmup: PositiveInt | None = None
    """Steps before the first target gradient. By default half of the run for a surface: early
    scores say what bigrams say. 24 where it starts from trained weights (`init_from`) and for a
    trajectory, of which half of the run with `initial: bigram`."""
    step: NonNegativeFloat | None = None
    """Step size of the exponentiated gradient; 0 measures and never moves. By default 0.2, and 0.02
    where the search begins at the `bigram` mixture."""
    exploration: Share = 0.5
    """Sampling distribution q = (1 - e) * mixture + e * uniform; 1 is the paper's reweighting of
    uniform samples, 0 samples from the mixture itself. Losses count with mixture / q."""
    target_batch: PositiveInt = 16
    """Target sequences per outer step, shared evenly among the targets."""
    objective: Literal["mean", "minimax"] = "mean"
    """Of several targets: the mean of their losses by `targets.weight`, or the worst one's excess
    over its reference, by weights that move towards the targets that are worst off."""
    target_step: PositiveFloat = 0.2
    """`minimax` only: how far a target's log-weight moves at an outer step per nat of excess."""
    target_reference: Literal["warmup"] | dict[str, float] = "warmup"
    """`minimax` only: the loss, in nats per token, from which a target's excess is counted: its own
    at the warm-up's end, or numbers by name (a good model's losses, for example)."""
    target_scores: Share = 0.25
    """Share (1/n) of the measured micro-batches on which every one of several targets is scored by
    itself, to tell which source helps which target; it decides nothing. 0 measures none."""
    answer: Literal["auto", "surface", "trajectory"] = "auto"
    """Where the answer comes from. `surface`: the run trains on one broad mixture, and the answer
    is the best one of a loss surface that n-gram statistics and the run's late scores agree on.
    `trajectory`: scores move the mixture that the run trains on. `auto` is surface, and trajectory
    for conversations, with `reuse` or `objective: minimax`, and where `step`, `initial: bigram` or
    `stop_when_converged` ask for one."""
    evidence: list[PathText] = Field(default=[])
    """Finished runs that the loss surface learns from too: run folders of `fastmix train`, folders
    that hold such (a swarm's, a retraining's, the branches of `fastmix branch`), and files that
    `fastmix import --from olmix` writes.
    Runs of this search's model, budget and held-out text tell losses; all others, each kind with an
    offset and a scale of its own, tell differences between mixtures."""
    scores: str | None = None
    """Which gradients are compared; by default `body` for a surface and `head` for a trajectory.
    `head`: closed form at the language-model head, no backward pass. `hooks:head`, `all`, `body`
    (all matrices but the head), or a regular expression over parameter names: hooks in the ordinary
    backward, for which every micro-batch holds one source."""
    score_tokens: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share (1/n) of each sequence's tokens that the closed form looks at. By default an eighth,
    and all where sources hold conversations, whose answers have few."""
    damping: NonNegativeFloat = 0.1
    """Added to Adam's second moment as a share of its root mean square."""
    precondition: bool = True
    """False compares raw gradients."""
    prior_strength: Share = 0.05
    """How far the log-weights go back to the initial mixture at every outer step (entropic
    regularisation): it keeps noise and a short horizon from starving a source."""
    decay: Share = 0.7
    """What remains of the scores' sums after an outer step."""
    initial: PathText | dict[str, float] = "auto"
    """The first mixture: `bigram`, the one from which a bigram model would learn most about the
    targets, at the budget; `uniform`, `proportional`, a mixture.json, or weights by name. `auto` is
    bigram for `method: fastmix` on text, and uniform for conversations and other methods."""
    repetitions: PositiveFloat = 15.0
    """Epochs beyond the first after which one more is worth 1/e of fresh text: positive scores of a
    source fade as it repeats at the budget, which is `search.constraints.budget_tokens` or the
    search's own tokens (15: Muennighoff et al., 2023)."""
    match_repetition: bool = False
    """Cut sources by the search's tokens / `constraints.budget_tokens`: repeat as the large run."""
    stop_when_converged: Share = 0.0
    """Ends the search early when at most this share of the tokens moved between the last quarter
    of its outer steps and the quarter before (from 16 outer steps on; 0.05 is a careful value); 0
    never does. `method: fastmix` only."""
    reference_rate: PositiveFloat = 0.1
    """`method: reference` only: Adam's learning rate on the mixture's logits."""
    constraints: Constraints | None = None
    """Limits on every mixture of the search, epochs at their budget; `method: fastmix` only."""
    reuse: ReuseSection | None = None
    """Keep an old mixture's ratios among sources that did not change; `method: fastmix` only."""

    def warmup_steps(self, from_bigrams_for: int | None = None) -> int:
        """Steps before the first target gradient.

        Args:
            from_bigrams_for: the run's steps, if it begins with the bigram mixture.
        """
        if self.warmup is not None:
            return self.warmup
        return WARMUP if from_bigrams_for is None else max(1, from_bigrams_for // 2)

    def surface_warmup(self, steps: int, trained: bool) -> int:
        """Steps before the first window of a surface: half of the run, while scores say what
        bigrams say. Those of trained weights say more from the start; only Adam begins anew.

        Args:
            steps: of the run.
            trained: whether it starts from trained weights.
        """
        half = self.warmup_steps(steps)
        return min(half, self.warmup_steps()) if trained else half

    @property
    def wants_surface(self) -> bool:
        """Whether the answer comes from a loss surface, as far as the configuration says: of
        conversations it does not, unless `answer` asks for it."""
        if self.answer != "auto":
            return self.answer == "surface"
        moves = self.step is not None or self.stop_when_converged > 0
        unguided = self.reuse is None and self.initial != BIGRAM
        return not moves and unguided and self.objective == "mean"

    def scored_share(self, conversations: bool) -> float:
        """Of each sequence's tokens.

        Args:
            conversations: whether the sources hold any.
        """
        if self.score_tokens is not None:
            return self.score_tokens
        return 1.0 if conversations else SCORED_TEXT

    @model_validator(mode="after")
    def _one_start(self) -> SearchSection:
        if self.reuse is not None and self.initial != "auto":
            raise ValueError("`reuse` gives the first mixture; drop `initial`")
        return self


class StageConfig(Section):
    """A later part of a training run with a mixture of its own, for example for annealing."""

    name: Name
    from_tokens: TokenCount
    """Tokens after which it begins, rounded up to a whole step."""
    mixture: PathText | dict[str, float]
    """As `mixture` of the whole run."""


class EvaluationSection(Section):
    """Held-out loss during and after the run."""

    every: WholeNumber = 0
    """Steps between evaluations; 0 evaluates only at the end."""
    sequences: PositiveInt = 128
    """Sequences per set, the same ones at every evaluation and for every seed."""
    sets: list[SourceConfig] = Field(default=[])
    holdout: WholeNumber = 0
    """Sequences at the end of every source that are never trained on; their loss is reported as
    held_out/NAME at every evaluation. 0 for none."""


class CheckpointSection(Section):
    every: WholeNumber = 0
    """Steps between checkpoints; 0 keeps only the last step's."""
    keep: PositiveInt = 2
    """How many of the newest checkpoints stay on disk."""
    keep_every: WholeNumber = 0
    """Checkpoints at multiples of this many steps stay as well; 0 for none."""
    keep_best: bool = False
    """Whether the checkpoint with the lowest held-out loss stays as well."""
    final: bool = True
    """Whether the finished run leaves a checkpoint."""


class GuardsSection(Section):
    """Warnings of a run that goes wrong (events.jsonl), and when it is stopped."""

    max_skipped: PositiveInt = 10
    """Steps with a non-finite gradient (each is skipped) before the run stops."""
    spike: NonNegativeFloat = 5.0
    """A logged loss this many running standard deviations above its running mean logs a
    warning; 0 watches for none."""
    min_effective_sources: NonNegativeFloat = 1.5
    """Fewer effective sources (exp of the mixture's entropy) are a collapsed mixture; 0 watches
    for none."""
    max_doubtful: Share = 0.5
    """A larger share of sources whose score is smaller than its own standard error logs a
    warning; 1 watches for none."""
    hang_minutes: NonNegativeFloat = 15.0
    """A run of several processes in which nothing moves for this long is ended, with the name and
    the stack of the stuck rank; it must cover one forward pass and one save. 0 watches for none."""


class LogSection(Section):
    every: PositiveInt = 10
    """Steps between lines in metrics.jsonl."""
    wandb: Literal["offline", "online", "disabled"] = "offline"
    """Nothing leaves the machine unless this, or WANDB_MODE where this is not given, says `online`.
    Without a login or a network the run logs offline, and says so."""
    wandb_project: str = "fastmix-mega"
    """Where it is not given, WANDB_PROJECT goes before it."""
