"""From references to tensors: the micro-batches that one process computes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmix_mega.data.rows import Source, any_masked
from fastmix_mega.data.sampler import Draw
from fastmix_mega.parallel.layout import Layout


@dataclass(frozen=True)
class MicroBatch:
    """b sequences of s tokens, on the device."""

    tokens: Tensor
    """[b, s + 1] int64: inputs are [:, :-1], labels [:, 1:]."""
    sources: Tensor
    """[b] int64: the number of the source (or target) of each sequence."""
    weights: Tensor
    """[b] fp32: how much each sequence's mean loss counts."""
    loss_mask: Tensor | None = None
    """[b, s] bool: which labels count in the loss; None for all. The run decides which: all its
    micro-batches of sources have one, or none has."""
    documents: Tensor | None = None
    """[b, s] int32: which conversation each input belongs to; attention does not leave it. None
    where there is no loss mask."""

    @property
    def answers(self) -> Tensor | None:
        """[b] fp32: how many labels count, at least 1; None where all do."""
        return None if self.loss_mask is None else self.loss_mask.sum(1).clamp_min(1).float()

    @property
    def inputs(self) -> Tensor:
        return self.tokens[:, :-1]

    @property
    def labels(self) -> Tensor:
        return self.tokens[:, 1:]


def rows_of_rank(
    global_batch: int, micro_batch: int, data_rank: int, data_size: int
) -> list[NDArray[np.int64]]:
    """The rows of a global batch that each micro-batch of a data-parallel rank holds.

    Micro-batches are dealt out in turn, so that micro-batch m of rank r is the global batch's
    micro-batch m * data_size + r under every number of ranks.
    """
    assert global_batch % (micro_batch * data_size) == 0
    starts = range(data_rank * micro_batch, global_batch, micro_batch * data_size)
    return [np.arange(start, start + micro_batch) for start in starts]


def load_micro_batch(
    sources: Sequence[Source],
    draw: Draw,
    rows: NDArray[np.int64],
    weights: NDArray[np.float64],
    device: torch.device,
) -> MicroBatch:
    """Read the sequences of `rows`; `weights` [B] belong to the draw's sequences."""
    chosen, indices = draw.sources[rows], draw.indices[rows]
    length = sources[int(chosen[0])].seq_length
    tokens = np.empty((len(rows), length + 1), np.int64)
    # Of text every token counts, and nothing borders the attention.
    mask, documents = (
        np.ones((len(rows), length), np.bool_),
        np.zeros((len(rows), length), np.int32),
    )
    for source in np.unique(chosen):
        places = np.flatnonzero(chosen == source)
        read = sources[int(source)].read(indices[places])
        tokens[places] = read.tokens
        if read.loss_mask is not None and read.documents is not None:
            mask[places], documents[places] = read.loss_mask, read.documents
    masked = any_masked(sources)
    return MicroBatch(
        tokens=moved(tokens, device),
        sources=moved(chosen, device),
        weights=moved(weights[rows].astype(np.float32), device),
        loss_mask=moved(mask, device) if masked else None,
        documents=moved(documents, device) if masked else None,
    )


def moved(array: NDArray[Any], device: torch.device) -> Tensor:
    """To a GPU from pinned memory, so that the copy does not wait for what the GPU is doing."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def even_draw(counts: Sequence[int], turn: int, multiple: int) -> tuple[Draw, NDArray[np.float64]]:
    """Consecutive samples of each of several sets, and weights that average each set.

    The rows are padded to a `multiple` (repeating the last) so that every process has the same
    number of micro-batches; padding weighs nothing.

    Args:
        counts: samples of each set.
        turn: how many such draws came before: each goes on where the last one ended.
        multiple: of rows.

    Returns:
        The draw, and [rows] weights: 1 / the set's count, or 0 for padding.
    """
    sources = np.repeat(np.arange(len(counts)), counts)
    indices = np.concatenate([turn * count + np.arange(count) for count in counts])
    weights = 1.0 / np.repeat(np.asarray(counts, np.float64), counts)
    padding = -len(sources) % multiple
    return (
        Draw(np.pad(sources, (0, padding), "edge"), np.pad(indices, (0, padding), "edge")),
        np.pad(weights, (0, padding)),
    )


def even_micro_batches(
    sets: Sequence[Source], per_set: int, turn: int, micro_batch: int, layout: Layout
) -> list[MicroBatch]:
    """This process's micro-batches of an even draw; every process has the same number of them.

    Of multiple choice, whole questions are drawn: at most `per_set` sequences, one question at
    least.
    """
    # The interleaved pipeline schedule goes through micro-batches in groups.
    group = layout.pipeline.size if layout.sizes["interleave"] > 1 else 1
    multiple = micro_batch * layout.data.size * group
    counts = [max(1, per_set // each.choices) * each.choices for each in sets]
    draw, weights = even_draw(counts, turn, multiple)
    rows = rows_of_rank(
        global_batch=len(weights),
        micro_batch=micro_batch,
        data_rank=layout.data.rank,
        data_size=layout.data.size,
    )
    return [load_micro_batch(sets, draw, part, weights, layout.device) for part in rows]
