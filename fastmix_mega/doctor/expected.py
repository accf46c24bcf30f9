"""Store the losses of the tiny search of one process on this machine's CPU:

python -m fastmix_mega.doctor.expected
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fastmix_mega.doctor import corpora
from fastmix_mega.files import read_jsonl, write_json


def losses_of(run_dir: Path) -> list[float]:
    """[steps] of a run folder; of a step that was made twice, the last time."""
    rows = [row for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row]
    by_step = {int(row["step"]): float(row["loss"]) for row in rows}
    return [by_step[step] for step in sorted(by_step)]


def main() -> int:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        corpora.write_corpora(data)
        for precision in ("fp32", "bf16"):
            run_dir = Path(folder) / precision
            content = corpora.settings(data, run_dir, precision=precision)
            path = corpora.write_settings(Path(folder) / f"{precision}.yaml", content)
            command = [sys.executable, "-m", "fastmix_mega", "search", str(path), "--nproc", "1"]
            subprocess.run(command, check=True)
            found[precision] = [round(loss, 7) for loss in losses_of(run_dir)]
    write_json(corpora.EXPECTED, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
