"""Does the trunk's own context, in place of the n-gram, foretell losses?

    python -m research.judge.branches FAMILY.yaml ... --train      # makes the trunks
    python -m research.judge.context_law FAMILY.yaml ... --others research/results/judge.jsonl

On the trunk's last hidden state h: a classifier r_i(h) of the source, and a head p_i(y | h) of
each, both trained on the sources' text with the trunk frozen. The best predictor of a mixture x
that knows h alone is sum_i x_i r_i p_i / sum_j x_j r_j, whose loss on a target is known for every
x. The table says how well that foretells the swarm of `truth.py`, beside the n-gram loss model, and
what the search's loss surface makes of its losses at the mixtures of branches, taken as it takes
those: differences of an unknown scale with a lasting error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cross_entropy

from research.forked import warm_up
from research.judge import product
from research.judge.branch_runs import mixtures_of
from research.judge.product import Family, Features, FloatArray
from research.judge.records import Records
from research.judge.surfaces import judged

EPOCHS = 4
RATE = 1e-3
HIDDEN = 128
"""Of the classifier."""


@dataclass(frozen=True)
class ContextLaw:
    """Of one target: what its tokens' contexts say."""

    sources: FloatArray
    """[N, S] r_i(h), at equal shares."""
    tokens: FloatArray
    """[N, S] p_i(y | h) of the right token."""

    def loss(self, mixture: FloatArray) -> float:
        """Nats per token at a mixture [S]."""
        joint = (self.sources * self.tokens) @ mixture
        return -float(np.mean(np.log(joint) - np.log(self.sources @ mixture)))


def laws_of(features: Features, seed: int = 0) -> list[ContextLaw]:
    """One per target."""
    dice = torch.Generator().manual_seed(seed)
    heads = [_head(hidden, tokens, features.head, dice) for hidden, tokens in features.sources]
    classifier = _classifier([hidden for hidden, _ in features.sources], dice, seed)
    found = []
    with torch.no_grad():
        for hidden, tokens in features.targets:
            right = torch.stack(
                [
                    torch.softmax(hidden @ head.T, 1).gather(1, tokens[:, None])[:, 0]
                    for head in heads
                ],
                dim=1,
            )
            found.append(ContextLaw(_array(torch.softmax(classifier(hidden), 1)), _array(right)))
    return found


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.double().numpy(), np.float64)


def _head(hidden: Tensor, tokens: Tensor, start: Tensor, dice: torch.Generator) -> Tensor:
    """[V, h] the trunk's, trained further on one source."""
    head = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([head], RATE)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(tokens), generator=dice).split(512):
            optimizer.zero_grad()
            cross_entropy(hidden[part] @ head.T, tokens[part]).backward()
            optimizer.step()
    return head.detach()


def _classifier(every: Sequence[Tensor], dice: torch.Generator, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    inputs = torch.cat(list(every))
    labels = torch.cat([torch.full((len(each),), i) for i, each in enumerate(every)])
    layers = torch.nn.Sequential(
        torch.nn.Linear(inputs.shape[1], HIDDEN),
        torch.nn.GELU(),
        torch.nn.Linear(HIDDEN, len(every)),
    )
    optimizer = torch.optim.Adam(layers.parameters(), 2 * RATE)
    for part in torch.randperm(len(labels), generator=dice).split(1024):
        optimizer.zero_grad()
        cross_entropy(layers(inputs[part]), labels[part]).backward()
        optimizer.step()
    return layers


def rows(family: Family, swarm: Records) -> list[str]:
    """A line for every target."""
    each = judged(family, swarm, 1)
    assert each is not None
    trunk = family.config_path.parent / "trunks" / family.name
    laws = laws_of(product.features(family, trunk))
    ngrams = np.array([each.surfaces.ngrams.losses(mixture)[0] for mixture in each.mixtures])
    at = np.array(list(mixtures_of(family).values()))
    told = np.array([[law.loss(mixture) for law in laws] for mixture in at])
    surfaces = [each.surfaces.with_branches(given) for given in (None, (at, told))]
    predicted = [surface.predict(each.mixtures).mean for surface in surfaces]
    found = []
    for number, (target, law) in enumerate(zip(family.targets, laws, strict=True)):
        context = np.array([law.loss(mixture) for mixture in each.mixtures])
        seen, *columns = (
            losses[1:] - losses[0]
            for losses in (
                each.losses[:, number],
                ngrams[:, number],
                context,
                *(losses[:, number] for losses in predicted),
            )
        )
        cells = [f"{family.name}: {target}"]
        cells += [f"{spearmanr(column, seen).statistic:.2f}" for column in columns]
        cells += [f"{np.std(column) / np.std(seen):.2f}" for column in columns[:2]]
        cells += [f"{_size(column - seen):.3f}" for column in (columns[0], *columns[2:])]
        found.append("| " + " | ".join(cells) + " |")
    return found


def _size(errors: FloatArray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", type=Path, nargs="+")
    parser.add_argument("--swarm", type=Path, default=Path("research/results/judge_swarm.jsonl"))
    parser.add_argument("--others", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    warm_up()
    swarm = Records(options.swarm, options.others)
    print(
        "| family: target | Spearman: n-grams | context | search | with the context | SD as a "
        "share of that seen: n-grams | context | RMSE: n-grams | search | with the context |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for path in options.families:
        print("\n".join(rows(Family(path), swarm)), flush=True)


if __name__ == "__main__":
    main()
