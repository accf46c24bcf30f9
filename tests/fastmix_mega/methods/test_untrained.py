"""`method: uniform | proportional | ngram` leave the files of every search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fastmix_mega.cli import main as cli
from fastmix_mega.mixture.file import read_mixture


@pytest.mark.parametrize("method", ["uniform", "proportional", "ngram"])
def test_a_mixture_without_training(
    settings: dict[str, Any], tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    settings["method"] = method
    if method != "ngram":
        del settings["targets"]
    path.write_text(yaml.safe_dump(settings))
    assert cli.main(["check", str(path)]) == 0
    # Started again, it is done again.
    for _ in range(2):
        assert cli.main(["search", str(path)]) == 0
    run_dir = Path(settings["run_dir"])
    mixture = read_mixture(run_dir / "mixture.json")
    weights = {source.name: source.weight for source in mixture.sources}
    assert mixture.search["method"] == method
    assert mixture.search["cost_in_proxy_runs"] == 0
    assert (run_dir / "config.yaml").is_file()
    assert f"without training a model (method: {method})" in (run_dir / "report.html").read_text()
    if method == "ngram":
        output = tmp_path / "verb.json"
        assert cli.main(["ngram", str(path), "--output", str(output)]) == 0
        assert read_mixture(output).sources == mixture.sources
        assert weights["beta"] == pytest.approx(2 / 3, abs=0.12)
    else:
        # The four sources are of one size.
        assert list(weights.values()) == pytest.approx([0.25] * 4)

    # Another method in the same folder is another run.
    other = "uniform" if method != "uniform" else "proportional"
    assert cli.main(["search", str(path), f"method={other}"]) == 2
    assert f"method is '{method}' there, '{other}' here" in capsys.readouterr().err
