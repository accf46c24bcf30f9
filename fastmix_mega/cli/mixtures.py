"""The verbs that hand mixtures and models over. Each is thin: words in, lines out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastmix_mega.cli.imports import import_libraries
from fastmix_mega.cli.seeds import pool_runs
from fastmix_mega.errors import UserError
from fastmix_mega.output_file import ResultFile, add_output, require_output_file
from fastmix_mega.quantities import parse_quantity

HUGGING_FACE = "huggingface"
"""The one format of models; all others are of mixtures."""
OLMIX = "olmix"
"""The one format of evidence: many runs with their mixtures and losses."""


def add_verbs(verbs: Any) -> None:
    """Add the verbs to the command's parser."""
    for add in (_add_export, _add_import, _add_compare, _add_pool, _add_ngram):
        add(verbs)


def _add_export(verbs: Any) -> None:
    export = verbs.add_parser(
        "export", help="write a mixture in a trainer's format, or a run's model for Hugging Face"
    )
    export.add_argument("mixture", help="a mixture.json or a run folder")
    export.add_argument(
        "--to",
        required=True,
        metavar="FORMAT",
        help="megatron, gpt-neox, ...; huggingface writes the model of a run folder or checkpoint",
    )
    add_output(export, "the file to write", required=True)
    export.add_argument("--constraints", type=Path, metavar="FILE", help="limits, as YAML")
    export.add_argument(
        "--budget-tokens", type=quantity, metavar="N", help="tokens of the large run: 300B, 2T"
    )
    export.add_argument(
        "--paths", metavar="TEMPLATE", help="where the reader's files are: 's3://bucket/{name}'"
    )
    export.add_argument(
        "--valid", action="append", default=[], metavar="PREFIX", help="held-out text; repeatable"
    )
    step = export.add_argument_group("a plan of several phases")
    step.add_argument("--global-batch", type=quantity, metavar="N", help="sequences of a step")
    step.add_argument("--seq-length", type=quantity, metavar="N", help="tokens of a sequence")
    export.set_defaults(verb=_export)


def _add_import(verbs: Any) -> None:
    take = verbs.add_parser(
        "import", help="take a trainer's or a published mixture, or a Hugging Face model"
    )
    take.add_argument("file", type=Path, help="the mixture's file, or the model's folder")
    take.add_argument(
        "--from",
        dest="format",
        required=True,
        metavar="FORMAT",
        help="weights, megatron, ...; huggingface takes a model's folder",
    )
    add_output(
        take,
        "the mixture.json to write; of a model, the configuration's keys as YAML",
        required=True,
    )
    take.add_argument(
        "--stage", metavar="NAME", help="take only this stage of a schedule (nanotron, levanter)"
    )
    take.add_argument(
        "--sizes",
        type=Path,
        metavar="FILE",
        help="tokens and rows by source, as YAML, for numbers that are epochs or shares of rows",
    )
    take.add_argument(
        "--metrics", type=Path, metavar="FILE", help="olmix: the metrics.csv beside ratios.csv"
    )
    take.set_defaults(verb=_import)


def _add_compare(verbs: Any) -> None:
    compare = verbs.add_parser("compare", help="how two mixtures or runs differ")
    compare.add_argument("first", metavar="A", help="a mixture.json or a run folder")
    compare.add_argument("second", metavar="B")
    compare.set_defaults(verb=_compare)


def _add_pool(verbs: Any) -> None:
    pool = verbs.add_parser("pool", help="one mixture from the searches of several seeds")
    pool.add_argument(
        "mixtures",
        nargs="+",
        help="mixture.json files or run folders, or the folder of a sweep over seeds",
    )
    add_output(pool, "the mixture.json to write", required=True)
    pool.set_defaults(verb=_pool)


def _add_ngram(verbs: Any) -> None:
    ngram = verbs.add_parser("ngram", help="the control: a mixture from bigrams alone")
    ngram.add_argument("config", help="a YAML configuration, for example configs/demo.yaml")
    ngram.add_argument("overrides", nargs="*", metavar="key.path=value", help="change it")
    add_output(ngram, "the mixture.json to write", required=True)
    ngram.add_argument(
        "--tokens",
        type=quantity,
        metavar="N",
        help="of each source (default: ngram.tokens, 4M)",
    )
    ngram.set_defaults(verb=_ngram)


def quantity(text: str) -> int:
    """300B, 1.5T, 1e9, 20000: tokens on a command line."""
    try:
        value = parse_quantity(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, such as 300B")
    return value


def _result(options: argparse.Namespace) -> ResultFile:
    return ResultFile(options.output, options.overwrite)


def _export(options: argparse.Namespace) -> int:
    if options.to == HUGGING_FACE:
        return _export_model(options)
    from fastmix_mega.config.constraints import read_constraints
    from fastmix_mega.export.export import export_mixture
    from fastmix_mega.export.schedules import SCHEDULES

    if _is_plan(options.mixture) and options.to in SCHEDULES:
        return _export_plan(options)
    constraints = None
    if options.constraints is not None:
        constraints = read_constraints(options.constraints, options.budget_tokens)
    done = export_mixture(
        options.mixture,
        options.to,
        _result(options),
        constraints,
        options.budget_tokens,
        options.paths,
        options.valid,
    )
    print("\n".join([*done.lines, str(done.path)]))
    return 0


def _is_plan(given: str) -> bool:
    from fastmix_mega.mixture.file import mixture_path, read_mixture

    return bool(read_mixture(mixture_path(given)).stages)


def _export_plan(options: argparse.Namespace) -> int:
    from fastmix_mega.export.schedules import StepSize, export_schedule

    given = (options.constraints, options.budget_tokens, options.valid or None)
    if any(each is not None for each in given):
        raise UserError(
            "a plan has its own budgets and limits: --constraints, --budget-tokens and --valid are "
            "about one mixture"
        )
    step = None
    if options.global_batch is not None and options.seq_length is not None:
        step = StepSize(options.global_batch, options.seq_length)
    done = export_schedule(options.mixture, options.to, options.output, step, options.paths)
    print("\n".join([*done.lines, str(done.path)]))
    return 0


def _export_model(options: argparse.Namespace) -> int:
    given = (options.constraints, options.budget_tokens, options.paths, options.valid or None)
    if any(each is not None for each in given):
        raise UserError(
            "--to huggingface writes a model; --constraints, --budget-tokens, --paths and --valid "
            "are about mixtures"
        )
    import_libraries()
    from fastmix_mega.weights.hf_export import export_huggingface

    print("\n".join(export_huggingface(options.mixture, options.output)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from fastmix_mega.mixture.file import mixture_path, read_mixture
    from fastmix_mega.mixture.pool import describe_comparison

    first, second = (read_mixture(mixture_path(name)) for name in (options.first, options.second))
    print("\n".join([f"A: {options.first}", f"B: {options.second}"]))
    print("\n".join(describe_comparison(first, second)))
    return 0


def _pool(options: argparse.Namespace) -> int:
    print("\n".join(pool_runs(options.mixtures, _result(options))))
    return 0


def _ngram(options: argparse.Namespace) -> int:
    from fastmix_mega.configuration import load_config
    from fastmix_mega.export.export import describe
    from fastmix_mega.methods.ngram import Ngram

    require_output_file(_result(options), [options.config])
    words = [*options.overrides, "method=ngram"]
    if options.tokens is not None:
        words.append(f"ngram.tokens={options.tokens}")
    mixture = Ngram(load_config(options.config, words)).mixture()
    mixture.write(options.output)
    print("\n".join([*describe(mixture, None), f"mixture: {options.output}"]))
    return 0


def _import(options: argparse.Namespace) -> int:
    if options.format == HUGGING_FACE:
        import_libraries()
        from fastmix_mega.weights.hf_export import import_huggingface

        print("\n".join(import_huggingface(options.file, _result(options))))
        return 0
    if options.format == OLMIX:
        from fastmix_mega.export.swarm_evidence import import_olmix

        if options.metrics is None:
            raise UserError("--from olmix takes two tables: give --metrics metrics.csv as well")
        print("\n".join(import_olmix(options.file, options.metrics, _result(options))))
        return 0
    from fastmix_mega.export.take import import_mixture
    from fastmix_mega.export.units import read_sizes

    sizes = None if options.sizes is None else read_sizes(options.sizes)
    lines = import_mixture(options.file, options.format, _result(options), options.stage, sizes)
    print("\n".join(lines))
    if options.output.is_file():
        print(options.output)
    return 0
