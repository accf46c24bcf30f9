"""The registry: every format that `fastmix export` writes and `fastmix import` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastmix_mega.errors import UserError
from fastmix_mega.export import datasets_formats, megatron, plain, yaml_formats
from fastmix_mega.export.plan import Part, Plan


@dataclass(frozen=True)
class Format:
    write: Callable[[Plan], str] | None
    read: Callable[[str], list[Part]] | None
    unit: str
    """Of which the weights are shares, in the reader's own terms."""
    use: str
    """How the reader takes the file."""
    notes_inside: bool = True
    """Whether the file itself can hold the notes."""


SAMPLES = "samples of the sequence's length, so of tokens"
FORMATS: dict[str, Format] = {
    "fastmix": Format(
        plain.write_fastmix, None, "tokens", "fastmix train CONFIG mixture=FILE", False
    ),
    "megatron": Format(
        megatron.write_arguments,
        megatron.read_arguments,
        SAMPLES,
        "Megatron-LM: --data-args-path FILE --split 100,0,0",
        False,
    ),
    "megatron-split-json": Format(
        megatron.write_splits,
        megatron.read_splits,
        SAMPLES,
        "Megatron-LM: --per-split-data-args-path FILE (and no --split)",
        False,
    ),
    "megatron-bridge": Format(
        megatron.write_bridge,
        megatron.read_bridge,
        SAMPLES,
        "Megatron-Bridge: GPTDatasetConfig(blend=json.load(open(FILE))['blend'], ...)",
        False,
    ),
    "gpt-neox": Format(
        yaml_formats.write_neox,
        yaml_formats.read_neox,
        SAMPLES,
        "GPT-NeoX: add FILE to the configuration files of deepy.py",
    ),
    "olmo-core": Format(
        yaml_formats.write_olmo,
        yaml_formats.read_olmo,
        "tokens",
        "OLMo-core: the source_list of a SourceMixtureDatasetConfig",
    ),
    "nanotron": Format(
        yaml_formats.write_nanotron,
        yaml_formats.read_nanotron,
        SAMPLES,
        "nanotron: data_stages[].data.dataset",
    ),
    "mosaicml-streaming": Format(
        yaml_formats.write_streaming,
        yaml_formats.read_streaming,
        "samples; of tokens if every sample is a packed sequence",
        "mosaicml-streaming: [Stream(**s) for s in yaml.safe_load(open(FILE))['streams'].values()]",
    ),
    "hf-datasets": Format(
        datasets_formats.write_interleave,
        datasets_formats.read_interleave,
        "rows; of tokens if every row is a packed sequence, else take document_probabilities",
        "datasets: interleave_datasets([load_from_disk(p) for p in datasets], "
        "probabilities=..., seed=..., stopping_strategy=...)",
    ),
    "torchtitan": Format(
        datasets_formats.write_torchtitan,
        datasets_formats.read_torchtitan,
        "packed sequences, so of tokens",
        "torchtitan: [HFDataSource(**s) for s in json.load(open(FILE))['sources']]",
    ),
    "csv": Format(plain.write_csv, plain.read_csv, "tokens", "any spreadsheet", False),
    "weights": Format(None, plain.read_weights, "as published", "name: weight as YAML or JSON"),
}


def writer_of(name: str) -> Format:
    return _get(name, "export", "--to", lambda each: each.write is not None)


def reader_of(name: str) -> Format:
    return _get(name, "import", "--from", lambda each: each.read is not None)


def _get(name: str, verb: str, option: str, fits: Callable[[Format], bool]) -> Format:
    known = [key for key, each in FORMATS.items() if fits(each)]
    if name not in known:
        raise UserError(
            f"fastmix {verb} knows no {option} {name!r}; choose {', '.join(known)}, or "
            "huggingface for a model"
        )
    return FORMATS[name]
