"""Everything of the product that the research uses, in one place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data_tools.build_corpora import CorporaConfig, build_corpora
from data_tools.preprocess_run import Options, RunOptions, preprocess
from data_tools.train_tokenizer import Training
from data_tools.train_tokenizer import train_tokenizer as train_product_tokenizer
from fastmix_mega.config.sections import TargetConfig
from fastmix_mega.data.indexed_format import token_dtype
from fastmix_mega.data.indexed_reader import IndexedTokens
from fastmix_mega.data.indexed_writer import IndexedWriter
from fastmix_mega.data.rows import Source
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.files import read_jsonl
from fastmix_mega.mixture import regression as regmix
from fastmix_mega.mixture.bigram import (
    BigramCounts,
    bigram_loss,
    count_bigrams,
    first_mixture,
)
from fastmix_mega.mixture.counting import read_sequences
from fastmix_mega.mixture.file import read_mixture
from fastmix_mega.mixture.ngram_loss import NgramLossModel, read_counts
from fastmix_mega.mixture.simplex import floored
from fastmix_mega.mixture.surface import LossSurface as LossSurface
from fastmix_mega.mixture.surface import SurfaceConstants as SurfaceConstants
from fastmix_mega.mixture.surface_controller import SurfaceController, SurfaceSettings
from fastmix_mega.mixture.surface_fit import (
    Evidence,
    fit,
)
from fastmix_mega.mixture.surface_values import OWN, Values
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.training.engine.learning_rate import learning_rate
from fastmix_mega.weights.runs import RunWeights
from research.forked import run_forked, shortened
from research.judge.records import Record
from research.ngram_law import NgramCounts, count_ngrams, ngram_loss
from research.quality.runs import Family as QualityFamily

FloatArray = NDArray[np.float64]
Tokens = NDArray[np.int64]
REPETITIONS = 15.0
MOST_TOKENS = 600_000
"""Of a source that n-grams are counted in."""
MOST_TARGET_TOKENS = 40_000
LONGEST = 4
"""Context of an n-gram law, in tokens."""

# --- corpora ---------------------------------------------------------------------------------


def build_text(corpora: dict[str, Any], output: Path, base: Path) -> None:
    """OUTPUT/text/{sources,targets,judge,heldout}/NAME.jsonl."""
    build_corpora(CorporaConfig.model_validate(corpora), output, base)


def train_tokenizer(texts: Sequence[Path], output: Path, vocab_size: int) -> None:
    training = Training(vocab_size, per_source=400_000, spread=False)
    train_product_tokenizer(list(texts), output, training)


def index_text(text: Path, tokenizer: Path, prefix: Path) -> tuple[int, int]:
    """Documents and tokens written."""
    anew = Options(run=RunOptions(fresh=True, overwrite=True))
    return preprocess([text], tokenizer, prefix, anew)


def read_documents(prefix: Path) -> list[Tokens]:
    data = IndexedTokens(prefix)
    ends = np.cumsum(data.lengths)
    every = np.asarray(data.tokens, np.int64)
    return [every[end - length : end] for end, length in zip(ends, data.lengths, strict=True)]


def write_documents(prefix: Path, documents: Sequence[Tokens], tokenizer: Path) -> None:
    known = Tokenizer(tokenizer)
    extra = {
        "tokenizer_sha256": known.sha256,
        "vocab_size": known.vocab_size,
        "eod": known.eod,
        "made_by": {"research": "ngrams"},
    }
    with IndexedWriter(prefix, token_dtype(known.vocab_size), extra) as writer:
        for document in documents:
            writer.add_document(document)


# --- a family's runs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Family(QualityFamily):
    """A configuration whose targets are judged together, and what is counted of its text."""

    @property
    def sources(self) -> list[str]:
        return self.config.source_names

    @property
    def source_tokens(self) -> FloatArray:
        return np.array([source.num_tokens for source in self.inputs.sources], np.float64)

    @property
    def budget(self) -> float:
        return float(self.config.train.tokens)

    @cached_property
    def _pair_counts(self) -> dict[tuple[str, bool], BigramCounts]:
        return {}

    def pair_counts(self, target: str, judged: bool) -> BigramCounts:
        """Of the sources, for the target's search text or for the judge's."""
        if (target, judged) not in self._pair_counts:
            every = self.inputs.evaluation_sets if judged else self.inputs.targets
            texts = [text for text in every if text.name == target]
            vocabulary = self.inputs.tokenizer.vocab_size
            counts = count_bigrams(self.inputs.sources, texts, np.ones(1), vocabulary)
            self._pair_counts[target, judged] = counts
        return self._pair_counts[target, judged]

    def bigram_loss(self, weights: FloatArray, target: str, judged: bool) -> float:
        """Nats per token of the bigram law at the mixture and the family's budget."""
        counts = self.pair_counts(target, judged)
        return bigram_loss(weights, counts, self.budget, REPETITIONS)[0]

    def bigram_law(self, weights: FloatArray, target: str) -> tuple[float, FloatArray]:
        """Loss and gradient on the target's search text."""
        counts = self.pair_counts(target, judged=False)
        return bigram_loss(weights, counts, self.budget, REPETITIONS)

    @cached_property
    def _source_sequences(self) -> list[Tokens]:
        return [read_sequences(source, MOST_TOKENS, 1) for source in self.inputs.sources]

    @cached_property
    def _ngram_counts(self) -> dict[str, NgramCounts]:
        return {}

    def ngram_law(
        self, weights: FloatArray, target: str, concentrations: Sequence[float]
    ) -> tuple[float, FloatArray]:
        """Loss and gradient on the target's search text of a law with contexts of as many tokens
        as there are concentrations; repetition plays no part."""
        if target not in self._ngram_counts:
            self._ngram_counts[target] = self._kept_counts(target)
        counts = self._ngram_counts[target]
        loss, gradient = ngram_loss(self.budget * weights, counts, concentrations)
        return loss, self.budget * gradient

    def _kept_counts(self, target: str) -> NgramCounts:
        """Counting takes minutes on a busy machine: what was counted is kept beside the corpora."""
        path = self.config_path.parent / "ngrams" / f"{self.name}.{target}.npz"
        if not path.is_file():
            text = next(text for text in self.inputs.targets if text.name == target)
            sequences = read_sequences(text, MOST_TARGET_TOKENS, 1)
            size = self.inputs.tokenizer.vocab_size
            found = count_ngrams(self._source_sequences, sequences, LONGEST, size)
            path.parent.mkdir(exist_ok=True)
            np.savez(
                path,
                together=found.together,
                alone=found.alone,
                singles=found.singles,
                weights=found.weights,
            )
        kept = np.load(path)
        together, alone = list(kept["together"]), list(kept["alone"])
        return NgramCounts(together, alone, kept["singles"], kept["weights"])

    def bigram_mixture(self, target: str) -> FloatArray:
        """[S] what a default search begins with."""
        texts = [text for text in self.inputs.targets if text.name == target]
        vocabulary = self.inputs.tokenizer.vocab_size
        every = self.inputs.sources
        return first_mixture(every, texts, np.ones(1), vocabulary, self.budget, REPETITIONS)


def rate_of_window(family: Family, end: int) -> float:
    """The learning rates of a window's steps, summed; the window ends after step `end`."""
    train = family.config.train
    steps = range(end - family.config.search.every, end)
    return sum(learning_rate(train.schedule, step, train.steps) for step in steps)


@dataclass(frozen=True)
class Finished:
    """What a run leaves."""

    losses: dict[str, float]
    """On held-out text that no search sees, by target."""
    seconds: float
    """Of the processor."""
    weights: list[float] = field(default_factory=list)
    standard_errors: list[float] = field(default_factory=list)
    cost: float = 1.0
    """In proxy runs by operation counts."""
    history: list[dict[str, Any]] = field(default_factory=list)


HISTORY = ("step", "mixture", "sampling", "scores", "score_stderr", "counts", "target_loss")
TARGET_HISTORY = ("target_scores", "target_score_stderr")


def train(
    family: Family,
    weights: Sequence[float],
    seed: int,
    settings: Sequence[str] = (),
    *,
    on_targets: bool = False,
) -> Finished:
    """A fresh model trained on a mixture by sampling.

    Args:
        family: whose.
        weights: [S] the mixture.
        seed: of the run.
        settings: beyond the family's own.
        on_targets: judge on the text that searches see, and not on the judge's own.
    """
    more = list(settings)
    if on_targets:
        more.append(f"evaluation.sets={json.dumps(_entries(family.config.targets))}")
    run_dir, seconds = _train(family, weights, seed, more)
    return Finished(_losses(run_dir), seconds)


def train_kept(
    family: Family, weights: Sequence[float], seed: int, settings: Sequence[str]
) -> Path:
    """As `train`, for its run folder."""
    return _train(family, weights, seed, settings)[0]


def _train(
    family: Family, weights: Sequence[float], seed: int, settings: Sequence[str]
) -> tuple[Path, float]:
    mixture = dict(zip(family.sources, weights, strict=True))
    # Whole batches are faster, and no scores ask for single sources here.
    size = f"train.micro_batch={family.config.train.global_batch}"
    return run_forked(family, "train", seed, [f"mixture={json.dumps(mixture)}", size, *settings])


def _entries(targets: Sequence[TargetConfig]) -> list[dict[str, Any]]:
    return [{"name": each.name, "prefix": each.prefix} for each in targets]


def search(family: Family, targets: Sequence[str], seed: int, settings: Sequence[str]) -> Finished:
    """A search for the mean of some targets, with everything that its history tells of them."""
    chosen = [
        each.model_dump(mode="json") for each in family.config.targets if each.name in targets
    ]
    run_dir, seconds = run_forked(
        family,
        "search",
        seed,
        [*settings, f"targets={json.dumps(chosen)}"],
    )
    file = read_mixture(run_dir / "mixture.json")
    rows = read_jsonl(run_dir / "history.jsonl")
    history = [
        {key: shortened(row[key]) for key in (*HISTORY, *TARGET_HISTORY) if key in row}
        for row in rows
    ]
    return Finished(
        _losses(run_dir),
        seconds,
        [source.weight for source in file.sources],
        [source.stderr or 0.0 for source in file.sources],
        float(file.search["cost_in_proxy_runs"]),
        history,
    )


def swarm_fit(mixtures: FloatArray, losses: FloatArray, seed: int) -> FloatArray:
    """[S] RegMix's answer, its regression chosen by cross-validation."""
    predict = regmix.fit(mixtures, losses, seed=seed)
    return regmix.best_mixture(predict, np.ones(mixtures.shape[1]), seed=seed)


# --- the loss surface -------------------------------------------------------------------------

CONTEXT = 2
"""Tokens, of the product's n-gram loss model."""


@dataclass(frozen=True)
class Remembered(NgramLossModel):
    """The same model: what it said of a mixture does not depend on any constant."""

    known: dict[bytes, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    def losses(self, mixture: FloatArray) -> tuple[FloatArray, FloatArray]:
        key = mixture.tobytes()
        if key not in self.known:
            self.known[key] = super().losses(mixture)
        return self.known[key]


@dataclass(frozen=True)
class Surfaces:
    """A trunk's evidence as the product's search has it, each target searched for by itself."""

    family: Family
    trunk: Record

    @property
    def reference(self) -> FloatArray:
        """[S] what the trunk trained on."""
        return np.full(len(self.family.sources), 1 / len(self.family.sources))

    @cached_property
    def ngrams(self) -> Remembered:
        inputs = self.family.inputs
        size = inputs.tokenizer.vocab_size
        counts = read_counts(inputs.sources, inputs.targets, size, CONTEXT)
        model = Remembered(counts, self.family.budget, REPETITIONS)
        found = model.fitted(self.reference, np.ones(len(inputs.targets)))
        levels = np.array([each.level for each in self.evidence])
        lengths = found.as_strong_as(levels, self.reference, self.family.budget).context_lengths
        plain = (counts, self.family.budget, REPETITIONS, found.smoothing, None)
        return Remembered(*plain, lengths)

    @cached_property
    def evidence(self) -> list[Evidence]:
        return [self._replayed(number) for number in range(len(self.family.targets))]

    def _replayed(self, target: int) -> Evidence:
        """The windows of the run's last half, in their order."""
        steps, every = self.family.config.train.steps, self.family.config.search.every
        rows = [row for row in self.trunk.history if row["step"] >= steps // 2 + every]
        name, level = self.family.targets[target], np.zeros(1)
        settings = SurfaceSettings(
            np.ones(1),
            None,
            lambda number: rate_of_window(self.family, rows[number]["step"]),
            levels=lambda: level,
            windows=len(rows),
        )
        controller = SurfaceController(self.reference, settings)
        for row in rows:
            counts = np.array(row["counts"], np.float64)
            scores = np.where(counts > 0, np.array(row["target_scores"][target], float), 0.0)
            level[0] = row["target_loss"][name]
            controller.update(np.stack((scores * counts, scores**2 * counts, counts, counts)))
        return controller.evidence()[0]

    def fitted(
        self,
        constants: SurfaceConstants,
        runs: tuple[FloatArray, FloatArray] | None = None,
        trunk: bool = True,
    ) -> LossSurface:
        """The posterior.

        Args:
            constants: of prior and errors.
            runs: mixtures [N, S] and losses [N, K] of finished runs.
            trunk: whether its level and its scores count, or n-grams and runs alone.
        """
        evidence, values = self.evidence, None
        if runs is not None:
            mixtures, losses = runs
            count = len(mixtures)
            values = Values(mixtures, losses, np.full(count, OWN), np.full(count, False))
            if not trunk:
                evidence = [Evidence(level) for level in losses.mean(axis=0).tolist()]
        return fit(self.reference, self.ngrams, evidence, values, constants)

    def with_branches(
        self, branches: tuple[FloatArray, FloatArray] | None, scores: bool = True
    ) -> LossSurface:
        """The posterior with short branches of the trunk.

        Args:
            branches: [B, S] mixtures and [B, K] losses.
            scores: whether the trunk's scores count.
        """
        values = None
        if branches is not None:
            count = len(branches[0])
            values = Values(*branches, np.full(count, OWN + 1), np.full(count, True))
        evidence = [each if scores else Evidence(each.level) for each in self.evidence]
        return fit(self.reference, self.ngrams, evidence, values, SurfaceConstants())

    def answer(self, found: LossSurface, target: int) -> FloatArray:
        """[S] of one of this family's surfaces, for one target."""
        return floored(found.best(np.eye(len(self.family.targets))[target]))


@dataclass(frozen=True)
class Features:
    """A trunk's last hidden states [N, h] with the tokens [N] that follow, and its head [V, h]."""

    sources: list[tuple[Tensor, Tensor]]
    targets: list[tuple[Tensor, Tensor]]
    head: Tensor


def features(family: Family, trunk: Path, sequences: int = 400) -> Features:
    """Of text that the trunk's search sees.

    Args:
        family: whose.
        trunk: a run folder with a checkpoint.
        sequences: of every source and target, at most.
    """
    size = family.inputs.tokenizer.vocab_size
    with parallel_layout.start(family.config.parallel) as layout:
        shape = resolve_shape(family.config.model, size)
        model = AnsweringModel(family.config, shape, layout, RunWeights(str(trunk)))
        states: list[Tensor] = []
        modules = dict(model.chunk.named_modules())
        decoder = next(each for name, each in modules.items() if name.endswith("decoder"))
        decoder.register_forward_hook(lambda _module, _given, output: states.append(output))
        head = next(each for name, each in model.chunk.named_parameters() if "output_layer" in name)

        def read(text: Source) -> tuple[Tensor, Tensor]:
            every = read_sequences(text, sequences * text.seq_length, 1).astype(np.int64)
            found = []
            for part in torch.from_numpy(every).split(16):
                states.clear()
                model.logits(part[:, :-1])
                found.append(states[0].transpose(0, 1).flatten(0, 1).float())
            return torch.cat(found), torch.from_numpy(every[:, 1:]).flatten()

        inputs = family.inputs
        return Features(
            [read(text) for text in inputs.sources],
            [read(text) for text in inputs.targets],
            head.detach().clone().float()[:size],
        )


class Merger:
    """Losses of models whose weights lie between those of branches.

    Args:
        family: whose.
        branches: run folders by name, `uniform` first.
    """

    def __init__(self, family: Family, branches: dict[str, Path]) -> None:
        self._family, self._branches = family, branches
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Merger:
        family = self._family
        layout = self._open.enter_context(parallel_layout.start(family.config.parallel))
        shape = resolve_shape(family.config.model, family.inputs.tokenizer.vocab_size)
        vectors = []
        for run in self._branches.values():
            model = AnsweringModel(family.config, shape, layout, RunWeights(str(run)))
            vectors.append(parameters_to_vector(model.chunk.parameters()).detach().clone())
        self._model, self._even = model, vectors[0]
        self._moves = torch.stack(vectors[1:]) - vectors[0]
        self._texts = [
            torch.from_numpy(read_sequences(text, 160 * text.seq_length, 1).astype(np.int64))
            for text in family.inputs.targets
        ]
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @torch.no_grad()
    def losses(self, parts: FloatArray) -> list[float]:
        """[K] nats per token.

        Args:
            parts: [S] of every source's branch, less that at uniform.
        """
        merged = self._even + torch.as_tensor(parts, dtype=torch.float32) @ self._moves
        vector_to_parameters(merged, self._model.chunk.parameters())
        found = []
        for text in self._texts:
            logits = self._model.logits(text[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
            found.append(float(loss))
        return found


def regmix_predictions(mixtures: FloatArray, losses: FloatArray, new: FloatArray) -> FloatArray:
    """[M] what RegMix foretells of new mixtures [M, S] from those of [N, S] with losses [N]."""
    return np.asarray(regmix.fit(mixtures, losses[:, None], seed=0)(new)[:, 0])


def _losses(run_dir: Path) -> dict[str, float]:
    rows = [row["eval"] for row in read_jsonl(run_dir / "metrics.jsonl") if "eval" in row]
    return rows[-1]
