"""Goal 3: how good is a score estimate for its cost?

    python -m research.score_quality CONFIG [--budget 120] [--warm-up 60]

After some steps of real training at the demo's size, the same outer step is measured in three ways:
ours at the head (preconditioned, every sequence of a window, a share of its tokens), `method:
reference` (raw lm_head gradients of one micro-batch), and explicit backward passes of further
sequences of every source. Compared is noise x operations: the noise of an estimate is the variance
of its sources' means over the spread of the true scores; the operations are those beyond training.
Scores measured over `--windows` windows at a fixed model give both. The mixture is uniform: near a
good one the sources' true scores are level, and no way of measuring could tell them apart.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Row, one_thread, parser, tell

FloatArray = NDArray[np.float64]


def observed(trainer: Any, windows: int, first_step: int) -> FloatArray:
    """[4, S] sums (see `SourceSums`) of sequences' scores, with the weights left as they are."""
    from fastmix_mega.training.engine.batches import load_micro_batch

    meter, every = trainer.mixer.observer.meter, trainer.config.search.every
    step = first_step
    trainer.mixer.before_step(step)
    meter.enabled, meter.scores_left = True, None
    for _ in range(windows * every):
        draw = trainer.sampler.draw(step, trainer.mixer.policy.distribution)
        weights = trainer.mixer.policy.loss_weights[draw.sources]
        for number, rows in enumerate(trainer.rows):
            batch = load_micro_batch(
                trainer.run.inputs.sources, draw, rows, weights, trainer.layout.device
            )
            if number == 0:
                meter.begin_step(step, len(trainer.rows))
            meter.before_forward(number, batch)
            forward(trainer, batch)
        meter.end_step([], 1.0)
        step += 1
    found: FloatArray = meter.sums.take(lambda sums: sums)
    meter.enabled = False
    return found


def forward(trainer: Any, batch: Any) -> None:
    import torch

    with torch.no_grad():
        trainer.engine._forward(trainer.engine.deepspeed.module, batch)


def noise_per_sequence(sums: FloatArray) -> float:
    """Variance of a sequence's score within its source, over that of the sources' means."""
    total, squares, count, _ = sums
    mean = total / count
    within = (squares - count * mean**2) / (count - 1)
    # The means' own noise is in their variance; it is taken out.
    between = mean.var(ddof=1) - (within / count).mean()
    return float(within.mean() / max(between, 1e-300))


def measure(config_path: str, warm_up: int, windows: int) -> list[Row]:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.methods.registry import method_of
    from fastmix_mega.parallel import layout as parallel_layout
    from fastmix_mega.training.outer_loop import OuterLoop
    from fastmix_mega.training.trainer import Trainer

    noise: dict[str, list[float]] = {"whole": [], "share": [], "raw": []}
    with tempfile.TemporaryDirectory() as name:
        settings = [
            f"run_dir={name}/run",
            "log.wandb=disabled",
            "search.target_batch=128",
            "search.initial=uniform",
            "search.answer=trajectory",
            "search.scores=head",
        ]
        settings += ["search.every=8", "search.score_tokens=0.25"]
        settings += [f"search.warmup={warm_up - warm_up % 8}", "train.steps=400"]
        config = load_config(config_path, settings)
        with parallel_layout.start(config.parallel) as layout:
            trainer = Trainer(method_of(config), layout)
            assert isinstance(trainer.mixer, OuterLoop)
            for step in range(warm_up - warm_up % 8):
                trainer._train_step(step)
            start = warm_up - warm_up % 8
            for repeat in range(3):
                for way, share, raw in (
                    ("whole", 1.0, False),
                    ("share", config.search.scored_share(False), False),
                    ("raw", 1.0, True),
                ):
                    search = {"score_tokens": share, "precondition": not raw}
                    changed = config.model_copy(
                        update={"search": config.search.model_copy(update=search)}
                    )
                    object.__setattr__(trainer.mixer.observer.meter._access, "config", changed)
                    sums = observed(trainer, windows, start + 8 * repeat)
                    noise[way].append(noise_per_sequence(sums))
            trainer.close()
        return rows_of(config, trainer.run.shape, noise)


def rows_of(config: Any, shape: Any, noise: dict[str, list[float]]) -> list[Row]:
    body, head = 2.0 * shape.body_parameters, 2.0 * shape.vocab_size * shape.hidden_size
    train, search, sources = config.train, config.search, len(config.sources)
    target = 16 * (body + 2 * head)
    window = search.every * train.global_batch
    ours_cost = target + window * head * search.scored_share(False)
    reference_cost = target + train.micro_batch * head
    rows = []
    ratios: dict[str, list[float]] = {"reference": [], "explicit": [], "tokens": []}
    for whole, share, raw in zip(noise["whole"], noise["share"], noise["raw"], strict=True):
        # A window's estimate of a source is a mean over its part of the sequences.
        ours = share / (window / sources) * ours_cost
        ratios["reference"].append(raw / (train.micro_batch / sources) * reference_cost / ours)
        # Explicit passes see what ours pays for, after the same target gradient.
        sequences = (ours_cost - target) / (3 * (body + head)) / sources
        ratios["explicit"].append(whole / sequences * ours_cost / ours)
        ratios["tokens"].append(share / whole)
    for key, what, least in (
        ("reference", "noise x operations of `method: reference` / of head scores", 8.0),
        ("explicit", "of explicit per-source backward passes / of head scores", 3.0),
    ):
        values = sorted(ratios[key])
        text = f"{values[1]:.1f} ({values[0]:.1f} to {values[-1]:.1f}, 3 repetitions)"
        rows.append(Row(3, what, f"at least {least:g}", text, values[1] >= least))
    values = sorted(ratios["tokens"])
    text = f"{values[1]:.2f} ({values[0]:.2f} to {values[-1]:.2f}, 3 repetitions)"
    what = f"a sequence's noise with {search.scored_share(False):g} of the tokens / with all"
    rows.append(Row(3, what, "", text))
    return rows


def main() -> None:
    made = parser(__doc__, 120.0)
    made.add_argument("config")
    made.add_argument("--warm-up", type=int, default=48, help="training steps before (48)")
    made.add_argument("--windows", type=int, default=3, help="per repetition and way (3)")
    options = made.parse_args()
    one_thread()
    tell(measure(options.config, options.warm_up, options.windows), options.json)


if __name__ == "__main__":
    main()
