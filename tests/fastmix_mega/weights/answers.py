"""Logits of our model with several starting points' weights, under one layout.

Run in forked ranks: python tests.fastmix_mega.weights.answers CONFIG TOKENS OUTPUT FOLDER ...
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fastmix_mega.config.schema import Config
from fastmix_mega.configuration import load_config
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.model.presets import resolve_shape
from fastmix_mega.parallel import layout as parallel_layout
from fastmix_mega.weights.init_from import open_start


def answers(
    config: Config, folders: Sequence[str], tokens: list[list[int]]
) -> tuple[bool, dict[str, np.ndarray]]:
    """(whether this is rank 0, [b, s, V] by folder)"""
    found = {}
    with parallel_layout.start(config.parallel) as layout:
        for folder in folders:
            start = open_start(folder)
            mine = config.model_copy(update={"model": start.model})
            model = AnsweringModel(mine, resolve_shape(start.model, 1), layout, start)
            found[folder] = model.logits(torch.tensor(tokens)).cpu().numpy()
        return layout.is_main, found


def main(arguments: Sequence[str]) -> int:
    path, tokens, output, *folders = arguments
    is_main, found = answers(load_config(path), folders, json.loads(tokens))
    if is_main:
        np.savez(output, **{Path(folder).name: value for folder, value in found.items()})
    return 0
