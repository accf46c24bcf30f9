"""`fastmix report RUN_DIR`: one self-contained HTML page that explains a run.

Works on a finished search, on one that is still running, and on a training run. The page loads
nothing: style, script and numbers are in it, and its content security policy forbids the rest.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from fastmix_mega import __version__
from fastmix_mega.arrays import FloatArray
from fastmix_mega.errors import UserError
from fastmix_mega.files import write_atomic
from fastmix_mega.mixture.file import RULES, mixture_path, resolve_mixture
from fastmix_mega.report import findings, what_if, words
from fastmix_mega.report.bars import mixture_bars, score_rows
from fastmix_mega.report.charts import LineChart
from fastmix_mega.report.evidence import evidence_view
from fastmix_mega.report.figures import heat_map, line_charts
from fastmix_mega.report.pooled import is_pooled, read_pooled
from fastmix_mega.report.ranks import rank_table
from fastmix_mega.report.read import Run, read_run
from fastmix_mega.report.retrained import contradicted, contradictions, retrained_view
from fastmix_mega.report.saturation import saturation
from fastmix_mega.report.sources import MAXIMUM_EPOCHS, Mixture, view_mixture
from fastmix_mega.report.supports import supports
from fastmix_mega.report.targets import target_charts, target_matrix

SCRIPTS = ("report.js", "projection.js", "surface.js", "pareto.js", "what_if.js")
"""In this order: the last one uses the others."""


def build_report(run_dir: Path, baseline: str | None = None) -> Path:
    """Write run_dir/report.html from the folder's other files; returns its path.

    Args:
        run_dir: of a run, or of several seeds.
        baseline: a mixture of the user's to show beside the answer: a rule, file or run folder.

    Raises:
        UserError: if the folder is no run folder or one of its files is broken, or the baseline
            is of other sources.
    """
    directory = Path(run_dir)
    run = read_pooled(directory) if is_pooled(directory) else read_run(directory)
    path = run.directory / "report.html"
    # A lone surrogate, which JSON can hold, has no UTF-8 form.
    write_atomic(path, render(run, _baseline(run, baseline)).encode("utf-8", "replace"))
    return path


def _baseline(run: Run, given: str | None) -> tuple[str, FloatArray] | None:
    """Its name and [S] weights."""
    if given is None:
        return None
    if run.surface is None or run.mixture is None:
        raise UserError(
            "--baseline needs a finished search's surface.json, which predicts what the mixture "
            f"loses; {run.directory} has none"
        )
    tokens = [source.tokens or 0 for source in run.mixture.sources]
    path = given if given in RULES else str(mixture_path(given))
    return f"yours, {given}", resolve_mixture(path, run.names, tokens, "--baseline")


def render(run: Run, baseline: tuple[str, FloatArray] | None = None) -> str:
    """The page, with a mixture of the user's beside the answer, if one is given."""
    mixture = view_mixture(run)
    retrained = retrained_view(run)
    charts = line_charts(run, mixture) if mixture else {}
    by_target = target_charts(run) if mixture else {}
    charts |= by_target
    scripts = [Markup(_text(file)) for file in SCRIPTS]
    limits = what_if.what_if(run, mixture, contradicted(retrained))
    from_trajectory = run.search.answer_from == "trajectory"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "exact_percent": words.exact_percent,
        "quantity": words.quantity,
        "signed": words.signed,
        "shorten": words.shorten,
    }
    return environment.get_template("template.html").render(
        run=run,
        mixture=mixture,
        title=run.directory.resolve().name,
        headline=findings.headline(run, mixture),
        lead=findings.lead(run, mixture),
        confidence=findings.confidence(run, mixture),
        key_figures=findings.key_figures(run, mixture),
        warnings=[*contradictions(retrained), *findings.warnings(run, mixture)],
        supports=supports(run, mixture),
        retrained=retrained,
        facts=findings.facts(run),
        bars=mixture_bars(run, mixture) if mixture else None,
        charts=charts,
        scores=score_rows(run, mixture) if mixture else None,
        heat=heat_map(run, mixture) if mixture else None,
        matrix=target_matrix(run, mixture) if mixture else None,
        target_charts=list(by_target.values()),
        evidence=evidence_view(run, mixture, retrained, baseline) if mixture else None,
        ranks=rank_table(run),
        evaluation=run.evaluations[-1] if run.evaluations else None,
        # A run that trains on one mixture shows no saturation.
        saturation=saturation(run, mixture) if mixture and from_trajectory else [],
        maximum_epochs=MAXIMUM_EPOCHS,
        # jinja2's tojson writes <, >, & and ' as \uXXXX: no name can end the script element.
        data=page_data(run, mixture, charts) | {"what_if": limits},
        what_if=limits,
        what_if_rows=what_if.rows(mixture) if mixture else [],
        style=Markup(_text("style.css") + _text("what_if.css")),
        scripts=scripts,
        script_hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        version=__version__,
    )


def page_data(run: Run, mixture: Mixture | None, charts: dict[str, LineChart]) -> dict[str, Any]:
    """What the page's script reads: the drawn lines, rounded to what can be seen."""
    return {
        "run": run.directory.resolve().name,
        "sources": [
            {"name": source.name, "weight": source.weight, "stderr": source.stderr}
            for source in (mixture.sources if mixture else [])
        ],
        "charts": {
            name: {
                "kind": chart.kind,
                "x_title": chart.x_title,
                "x": chart.x,
                "series": [
                    {
                        "name": line.series.name,
                        "colour": line.series.colour,
                        "values": [_rounded(value) for value in line.series.values],
                    }
                    for line in chart.lines
                ],
            }
            for name, chart in charts.items()
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _text(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")
