"""Goal 7: the memory that a search adds to training, and whether `fastmix plan` predicts it.

    python -m benchmarks.search_memory [--precision bf16]

Peaks of torch's allocations over three steps, outer steps included, as `benchmarks.plan_memory`
records them; one process, 6.2M parameters. What is added is told as a multiple of the parameters in
bf16.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from benchmarks.plan_memory import measure_in_processes
from benchmarks.timing import Row, parser, tell

WAYS = {"head": "head scores", "all": "hooks on all parameters"}


def measure(precision: str) -> list[Row]:
    from fastmix_mega.configuration import parse_config
    from fastmix_mega.model.presets import resolve_shape
    from tests.tiny import tiny_settings, write_corpora

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        settings = tiny_settings(folder, folder / "run")
        settings["precision"] = precision
        settings["model"] = {"preset": "1M", "hidden_size": 256, "vocab_size": 8192}
        settings["train"] |= {"global_batch": 4, "micro_batch": 2, "seq_length": 128}
        settings["search"] |= {"warmup": 1, "every": 1, "target_batch": 4}
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        parameters = resolve_shape(parse_config(settings).model, 300).parameters
        plain = max(measure_in_processes(str(config), 1, "train", [])["peaks"])
        rows = []
        for scores, words in WAYS.items():
            found = measure_in_processes(str(config), 1, "search", [f"search.scores={scores}"])
            peak = max(found["peaks"])
            added = (peak - plain) / (2 * parameters)
            what = f"{precision}: peak memory that a search with {words} adds / bf16 parameters"
            text = f"{added:.2f} ({peak / 1e6:.0f} against {plain / 1e6:.0f} MB)"
            rows.append(Row(7, what, "at most 1.0", text, added <= 1))
            ratio = found["predicted"] / peak
            what = f"{precision}: `fastmix plan` / measured, a search with {words}"
            rows.append(Row(7, what, "0.9 to 1.1", f"{ratio:.3f}", abs(ratio - 1) <= 0.1))
    return rows


def main() -> None:
    made = parser(__doc__, 120.0)
    made.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    options = made.parse_args()
    tell(measure(options.precision), options.json)


if __name__ == "__main__":
    main()
