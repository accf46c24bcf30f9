"""Goal 4: is `fastmix train` as fast as a bare PyTorch loop, and as Hugging Face's Llama?

    python -m benchmarks.training_speed [--budget 200] [key.path=value ...]

The same shapes, batches, optimizer and threads. Ours (data loading, DeepSpeed, megatron-core, all
bookkeeping) alternates with a loop over `benchmarks.plain_model` on tensors in memory, whose losses
are first checked to be the same. That loop has a process of its own, with glibc's memory as it is;
two more run in ours, where freed memory is kept (`fastmix_mega.parallel.cpu`), which helps them.
transformers lives in .venv/consumers, with other versions of our libraries, so that its model
alternates with the plain loop in another process. Two processes are compared with one by processor
time: on a busy machine nothing else can be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.plain_model import PlainModel, PlainTraining
from benchmarks.timing import (
    Row,
    Span,
    Spread,
    alternate,
    one_thread,
    parser,
    ratios,
    tell,
    timed,
)

SIZES: dict[str, dict[str, Any]] = {
    "demo": {
        "model": {"preset": "demo", "vocab_size": 4096},
        "train": {"global_batch": 16, "micro_batch": 8, "seq_length": 128},
    },
    "10M": {
        "model": {"preset": "10M", "vocab_size": 8192},
        "train": {"global_batch": 4, "micro_batch": 2, "seq_length": 256},
    },
}
SELF = (sys.executable, "-m", "benchmarks.training_speed")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
WINDOW = {"demo": 4, "10M": 1}
WEIGHTS = "weights.pt"


def config_of(folder: Path, size: str, overrides: dict[str, Any] | None = None) -> Any:
    from fastmix_mega.configuration import parse_config
    from tests.tiny import tiny_settings

    settings = tiny_settings(folder, folder / f"run-{size}")
    for section in ("model", "train"):
        settings[section] = {**settings[section], **SIZES[size][section]}
    settings["train"]["steps"] = 1_000_000
    settings["train"]["optimizer"] = {"epsilon": 1e-8}
    return parse_config(settings | (overrides or {}))


def random_batches(config: Any, count: int) -> list[torch.Tensor]:
    train = config.train
    size = (train.micro_batch, train.seq_length + 1)
    return [torch.randint(3, 290, size) for _ in range(count)]


def plain_window(
    losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    training: PlainTraining,
    batches: list[torch.Tensor],
    steps: int,
) -> Callable[[], None]:
    """A window of training steps on tensors in memory."""

    def window() -> None:
        for _ in range(steps):
            for batch in batches:
                mean = losses(batch[:, :-1], batch[:, 1:]).mean() / len(batches)
                mean.backward()
            training.update()

    return window


def plain_from(shape: Any, named: Mapping[str, torch.Tensor]) -> PlainModel:
    copies = {
        name: value.detach().float().clone().requires_grad_() for name, value in named.items()
    }
    return PlainModel(shape, copies)


class OwnProcess:
    """The bare loop in a process of its own, a window at a time: an action for `alternate`."""

    def __init__(self, size: str, folder: Path, named: Mapping[str, torch.Tensor]) -> None:
        torch.save(
            {name: value.detach().clone() for name, value in named.items()}, folder / WEIGHTS
        )
        self._process = subprocess.Popen(
            [*SELF, "--bare", size, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self) -> Span:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Span(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def bare(size: str, folder: Path) -> None:
    """The other side of `OwnProcess`."""
    from fastmix_mega.model.presets import resolve_shape

    config = config_of(folder, size)
    plain = plain_from(resolve_shape(config.model, 300), torch.load(folder / WEIGHTS))
    train = config.train
    batches = random_batches(config, train.global_batch // train.micro_batch)
    training = PlainTraining(list(plain.parameters.values()), 3e-3, False)
    window = plain_window(plain.losses, training, batches, WINDOW[size])
    for _ in sys.stdin:
        span = timed(window)
        print(json.dumps([span.wall, span.cpu]), flush=True)


def measure_ours(size: str, folder: Path, layout: Any, budget: float) -> list[Row]:
    from fastmix_mega.methods.fixed import FixedMixture
    from fastmix_mega.model.gpt import named_parts
    from fastmix_mega.training.engine.batches import MicroBatch
    from fastmix_mega.training.trainer import Trainer

    config = config_of(folder, size)
    trainer = Trainer(FixedMixture(config), layout)
    named = named_parts(trainer.engine.deepspeed.module)
    plain = plain_from(trainer.run.shape, named)
    count = trainer.engine.micro_batches_per_step
    batches = random_batches(config, count)
    rows = len(batches[0])
    given = MicroBatch(batches[0], torch.zeros(rows, dtype=torch.int64), torch.ones(rows))
    with torch.no_grad():
        our_losses = trainer.engine._forward(trainer.engine.deepspeed.module, given)
        theirs = plain.losses(batches[0][:, :-1], batches[0][:, 1:])
    torch.testing.assert_close(our_losses, theirs, rtol=1e-5, atol=1e-5)
    steps = WINDOW[size]
    numbers = iter(range(1_000_000))

    def our_window() -> None:
        for _ in range(steps):
            trainer._train_step(next(numbers))

    own_process = OwnProcess(size, folder, named)
    actions: list[Callable[[], object]] = [our_window, own_process]
    for fused in (False, True):
        model = plain_from(trainer.run.shape, named)
        training = PlainTraining(list(model.parameters.values()), 3e-3, fused)
        actions.append(plain_window(model.losses, training, batches, steps))
    ours, *others = alternate(actions, 20, budget)
    own_process.close()
    trainer.close()
    told = []
    ways = (
        "a bare PyTorch loop",
        "the same in our process, which keeps freed memory",
        "the same there with fused AdamW",
    )
    for way, there in zip(ways, others, strict=True):
        cpu, wall = ratios(there, ours)
        measured = f"{cpu} by processor time, {wall} by wall time, {cpu.count} pairs"
        what = f"{size}: tokens/s of fastmix train / of {way}"
        decides = way == ways[0]
        met = cpu.median >= 0.97 if decides else None
        told.append(Row(4, what, "at least 0.97" if decides else "", measured, met))
    return told


def hugging_face(size: str, folder: Path, budget: float) -> None:
    """In a process with transformers: plain loop against LlamaForCausalLM; prints the ratios."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from fastmix_mega.model.presets import resolve_shape

    config = config_of(folder, size)
    shape = resolve_shape(config.model, 300)
    torch.manual_seed(1)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.ffn_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.attention_heads,
            num_key_value_heads=shape.key_value_heads,
            rms_norm_eps=1e-5,
            attn_implementation="sdpa",
            use_cache=False,
        )
    )
    plain = plain_from(shape, _names_from_llama(llama, shape))
    train = config.train
    batches = random_batches(config, train.global_batch // train.micro_batch)

    def llama_losses(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = llama(inputs, use_cache=False).logits
        flat = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )
        return flat.view(labels.shape).mean(1)

    with torch.no_grad():
        pair = batches[0][:, :-1], batches[0][:, 1:]
        torch.testing.assert_close(plain.losses(*pair), llama_losses(*pair), rtol=1e-4, atol=1e-4)
    ways = [
        (plain.losses, list(plain.parameters.values())),
        (llama_losses, list(llama.parameters())),
    ]
    actions = [
        plain_window(losses, PlainTraining(parameters, 3e-3, False), batches, WINDOW[size])
        for losses, parameters in ways
    ]
    spans = alternate(actions, 20, budget)
    print(json.dumps([[(s.wall, s.cpu) for s in way] for way in spans]))


def _names_from_llama(llama: Any, shape: Any) -> dict[str, torch.Tensor]:
    """transformers' weights under megatron-core's names."""
    found = {
        "embedding.word_embeddings.weight": llama.model.embed_tokens.weight,
        "decoder.final_layernorm.weight": llama.model.norm.weight,
        "output_layer.weight": llama.lm_head.weight,
    }
    size, groups = shape.head_size, shape.key_value_heads
    for number, layer in enumerate(llama.model.layers):
        attention, mlp, prefix = layer.self_attn, layer.mlp, f"decoder.layers.{number}."
        parts = [
            projection.weight.view(groups, -1, size, shape.hidden_size)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        mixed = torch.cat(parts, 1).reshape(-1, shape.hidden_size)
        found[f"{prefix}self_attention.linear_qkv.weight"] = mixed
        found[f"{prefix}self_attention.linear_proj.weight"] = attention.o_proj.weight
        found[f"{prefix}input_layernorm.weight"] = layer.input_layernorm.weight
        found[f"{prefix}pre_mlp_layernorm.weight"] = layer.post_attention_layernorm.weight
        both = torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight))
        found[f"{prefix}mlp.linear_fc1.weight"] = both
        found[f"{prefix}mlp.linear_fc2.weight"] = mlp.down_proj.weight
    return found


def measure_hugging_face(size: str, folder: Path, budget: float) -> list[Row]:
    consumers = Path(sys.prefix) / "consumers"
    if not consumers.exists():
        return [Row(4, f"{size}: Hugging Face", "", "not measured: .venv/consumers is missing")]
    done = subprocess.run(
        [*SELF, "--hugging-face", size, str(folder), "--budget", str(budget)],
        env=os.environ | {"PYTHONPATH": f"{consumers}:{Path.cwd()}"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    plain, llama = (
        [Span(*span) for span in way] for way in json.loads(done.stdout.splitlines()[-1])
    )
    cpu, wall = ratios(plain, llama)
    measured = f"{cpu} by processor time, {wall} by wall time, {cpu.count} pairs"
    what = f"{size}: tokens/s of Hugging Face's Llama / of the bare loop"
    return [Row(4, what, "below ours", measured)]


def data_parallel(folder: Path, steps: int) -> None:
    """Under torchrun: processor time per step of this many processes; rank 0 prints the sum."""
    from fastmix_mega.methods.fixed import FixedMixture
    from fastmix_mega.parallel import layout as parallel_layout
    from fastmix_mega.training.trainer import Trainer

    config = config_of(folder, "demo")
    with parallel_layout.start(config.parallel) as layout:
        trainer = Trainer(FixedMixture(config), layout)
        for step in range(3):
            trainer._train_step(step)
        used = []
        for step in range(3, 3 + steps):
            before = time.process_time()
            trainer._train_step(step)
            spent = torch.tensor([time.process_time() - before])
            used.append(float(layout.world.sum(spent)))
        trainer.close()
        if layout.is_main:
            print(json.dumps(used))


def measure_data_parallel(folder: Path) -> list[Row]:
    used: dict[int, list[float]] = {1: [], 2: []}
    for processes in (1, 2, 1, 2):
        done = subprocess.run(
            [*TORCHRUN, f"--nproc-per-node={processes}", *SELF[1:], "--data-parallel", str(folder)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
        used[processes] += json.loads(lines[-1])
    spread = Spread.of([one / two for one, two in zip(used[1], used[2], strict=True)])
    what = "demo: processor time of a step in one process / in two together (waiting not counted)"
    return [Row(4, what, "at least 0.9", f"{spread}, {spread.count} steps", spread.median >= 0.9)]


def measure(size: str, budget: float) -> Iterator[Row]:
    from fastmix_mega.config.sections import ParallelSection
    from fastmix_mega.parallel import layout as parallel_layout
    from tests.tiny import write_corpora

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        with parallel_layout.start(ParallelSection()) as layout:
            yield from measure_ours(size, folder, layout, budget / 2)
        for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
            os.environ.pop(variable, None)
        yield from measure_hugging_face(size, folder, budget / 3)
        if size == "demo":
            yield from measure_data_parallel(folder)


def main() -> None:
    made = parser(__doc__, 200.0)
    made.add_argument("--size", choices=(*SIZES, "both"), default="both")
    made.add_argument("--hugging-face", nargs=2, help="used by the benchmark itself")
    made.add_argument("--bare", nargs=2, help="used by the benchmark itself")
    made.add_argument("--data-parallel", help="used by the benchmark itself")
    options = made.parse_args()
    one_thread()
    if options.hugging_face:
        hugging_face(options.hugging_face[0], Path(options.hugging_face[1]), options.budget)
    elif options.bare:
        bare(options.bare[0], Path(options.bare[1]))
    elif options.data_parallel:
        data_parallel(Path(options.data_parallel), 20)
    else:
        sizes = list(SIZES) if options.size == "both" else [options.size]
        for size in sizes:
            for row in measure(size, options.budget / len(sizes)):
                tell([row], options.json)


if __name__ == "__main__":
    main()
