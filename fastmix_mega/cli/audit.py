"""`fastmix audit`: what is wrong with a blend file, before the large run starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastmix_mega.cli.mixtures import quantity


def add_verb(verbs: Any) -> None:
    """Add the verb to the command's parser."""
    audit = verbs.add_parser(
        "audit", help="find faults of a blend file, of ours or of others, before a large run"
    )
    audit.add_argument("blend", type=Path, help="a mixture.json, or any file that import reads")
    audit.add_argument(
        "--budget-tokens", type=quantity, required=True, metavar="N", help="of the large run: 2T"
    )
    audit.add_argument("--from", dest="format", metavar="FORMAT", help="default: found out")
    audit.add_argument(
        "--sizes", type=Path, metavar="FILE", help="tokens and rows by source, as YAML"
    )
    audit.add_argument("--seq-length", type=int, default=4096, metavar="N", help="default: 4096")
    audit.add_argument(
        "--target", action="append", default=[], metavar="PREFIX", help="held-out text; repeatable"
    )
    audit.add_argument(
        "--intended", type=Path, metavar="MIXTURE", help="the mixture that the blend should give"
    )
    audit.add_argument(
        "--root", type=Path, metavar="FOLDER", help="where the trainer starts (relative paths)"
    )
    audit.add_argument("--max-maps", type=int, metavar="N", help="default: this machine's")
    audit.add_argument("--open-files", type=int, metavar="N", help="default: this machine's")
    audit.set_defaults(verb=_audit)


def _audit(options: argparse.Namespace) -> int:
    from fastmix_mega.audit.case import Run
    from fastmix_mega.audit.report import audit, describe, harmful
    from fastmix_mega.errors import UserError
    from fastmix_mega.export.units import read_sizes
    from fastmix_mega.mixture.file import mixture_path, read_mixture

    if options.seq_length < 1:
        raise UserError("--seq-length must be at least 1")
    intended = None
    if options.intended is not None:
        intended = read_mixture(mixture_path(options.intended)).weights
    run = Run(
        budget=options.budget_tokens,
        seq_length=options.seq_length,
        max_maps=options.max_maps or _maps_here(),
        open_files=options.open_files or _open_files_here(),
        targets=options.target,
        intended=intended,
    )
    sizes = None if options.sizes is None else read_sizes(options.sizes)
    cases, findings = audit(mixture_path(options.blend), run, options.format, sizes, options.root)
    print("\n".join(describe(cases, findings)))
    return 1 if harmful(findings) else 0


def _maps_here() -> int:
    """vm.max_map_count, or Linux's default where there is none."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return 65530


def _open_files_here() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 2**31
