"""Goal 7: the memory that a search adds to training, and whether `fastmix plan` predicts it.

    python -m benchmarks.search_memory [--precision bf16]

Peaks of torch's allocations over three steps, outer steps included, as `benchmarks.plan_memory`
records them; one process, 13M parameters, two thirds of them in the body. What is added is told in
bytes a parameter. The default search holds the direction of one target at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from benchmarks.plan_memory import measure_in_processes
from benchmarks.timing import Row, parser, tell

DEFAULT = "the default search"
WAYS = {
    DEFAULT: [],
    "a trajectory of head scores": ["search.answer=trajectory", "search.scores=head"],
    "a trajectory of scores of all parameters": ["search.answer=trajectory", "search.scores=all"],
}
"""Settings beyond the default's."""
MOST = 3.0
"""Bytes a parameter."""


def measure(precision: str) -> list[Row]:
    from fastmix_mega.configuration import parse_config
    from fastmix_mega.model.presets import resolve_shape
    from tests.tiny import tiny_settings, write_corpora

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpora(folder)
        settings = tiny_settings(folder, folder / "run")
        settings["precision"] = precision
        settings["model"] = {"preset": "1M", "hidden_size": 256, "layers": 12, "vocab_size": 8192}
        settings["train"] |= {"global_batch": 4, "micro_batch": 2, "seq_length": 128}
        settings["search"] = {"warmup": 1, "every": 1, "target_batch": 4}
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump(settings))
        parameters = resolve_shape(parse_config(settings).model, 300).parameters
        plain = max(measure_in_processes(str(config), 1, "train", [])["peaks"])
        rows = []
        for words, overrides in WAYS.items():
            found = measure_in_processes(str(config), 1, "search", overrides)
            peak = max(found["peaks"])
            added = (peak - plain) / parameters
            rows.append(
                Row(
                    7,
                    f"{precision}: peak memory that {words} adds, bytes a parameter",
                    f"at most {MOST:g}" if words == DEFAULT else "",
                    f"{added:.2f} ({peak / 1e6:.0f} against {plain / 1e6:.0f} MB)",
                    added <= MOST if words == DEFAULT else None,
                )
            )
            ratio = found["predicted"] / peak
            what = f"{precision}: `fastmix plan` / measured, {words}"
            rows.append(Row(7, what, "0.9 to 1.1", f"{ratio:.3f}", abs(ratio - 1) <= 0.1))
    return rows


def main() -> None:
    made = parser(__doc__, 120.0)
    made.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    options = made.parse_args()
    tell(measure(options.precision), options.json)


if __name__ == "__main__":
    main()
