"""The registry: every format that `fastmix export` writes and `fastmix import` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastmix_mega.errors import UserError
from fastmix_mega.export import (
    datasets_formats,
    finetuning,
    megatron,
    nvidia,
    plain,
    pretraining,
    torchtitan,
    yaml_formats,
)
from fastmix_mega.export.blend import Reader, row_shares, token_shares
from fastmix_mega.export.plan import Plan


@dataclass(frozen=True)
class Format:
    write: Callable[[Plan], str] | None
    read: Reader | None
    unit: str
    """Of which the weights are shares, in the reader's own terms."""
    use: str
    """How the reader takes the file."""
    notes_inside: bool = True
    """Whether the file itself can hold the notes."""
    meaning: str = ""
    """What a number says, as a sentence, where it is no share of `unit`."""
    notes: Callable[[Plan], list[str]] | None = None
    """What else a user of the file must know of this mixture."""

    @property
    def sentence(self) -> str:
        return self.meaning or f"Weights are shares of {self.unit}."


SAMPLES = "samples of the sequence's length, so of tokens"
KEPT = "Each number says which part of a source's rows is kept, so that no row is read twice."
FORMATS: dict[str, Format] = {
    "fastmix": Format(
        plain.write_fastmix, None, "tokens", "fastmix train CONFIG mixture=FILE", False
    ),
    "megatron": Format(
        megatron.write_arguments,
        token_shares(megatron.read_arguments),
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
        token_shares(megatron.read_bridge),
        SAMPLES,
        "Megatron-Bridge: GPTDatasetConfig(blend=json.load(open(FILE))['blend'], ...)",
        False,
    ),
    "automodel": Format(
        nvidia.write_automodel,
        nvidia.read_automodel,
        SAMPLES,
        "NeMo Automodel: add FILE's `dataset.paths` and `domain_mixture` to the recipe's YAML",
    ),
    "energon": Format(
        nvidia.write_energon,
        nvidia.read_energon,
        "samples, which are documents: corrected for the documents' mean lengths",
        "Energon: get_train_dataset(FILE, ...)",
    ),
    "energon-epochized": Format(
        nvidia.write_energon_epochs,
        nvidia.read_energon,
        "epochs",
        "Energon: get_train_dataset(FILE, repeat=False, ...)",
        meaning="Each number says how often all samples of a data set are read.",
        notes=finetuning.epoch_notes,
    ),
    "nemotron": Format(
        nvidia.write_nemotron,
        nvidia.read_nemotron,
        SAMPLES,
        "Nemotron: data prep's blend_path=FILE; pre-training only, its fine-tuning recipes do not "
        "read weights",
    ),
    "gpt-neox": Format(
        yaml_formats.write_neox,
        token_shares(yaml_formats.read_neox),
        SAMPLES,
        "GPT-NeoX: add FILE to the configuration files of deepy.py",
    ),
    "olmo-core": Format(
        yaml_formats.write_olmo,
        token_shares(yaml_formats.read_olmo),
        "tokens",
        "OLMo-core: the source_list of a SourceMixtureDatasetConfig",
    ),
    "olmo-core-composable": Format(
        pretraining.write_olmo_composable,
        pretraining.read_olmo_composable,
        "tokens",
        "OLMo-core: MixingDocumentSourceConfig.from_dict(yaml.safe_load(open(FILE)))",
    ),
    "levanter": Format(
        pretraining.write_levanter,
        pretraining.read_levanter,
        "sequences of one length, so of tokens",
        "Levanter: add FILE's `data` to the configuration; cache_dir is where its caches are",
    ),
    "fast-llm": Format(
        pretraining.write_fast_llm,
        pretraining.read_fast_llm,
        SAMPLES,
        "Fast-LLM: add FILE to the configuration; each path is a data set's YAML",
    ),
    "nanotron": Format(
        yaml_formats.write_nanotron,
        yaml_formats.read_nanotron,
        SAMPLES,
        "nanotron: data_stages[].data.dataset",
    ),
    "mosaicml-streaming": Format(
        yaml_formats.write_streaming,
        token_shares(yaml_formats.read_streaming),
        "samples; of tokens if every sample is a packed sequence",
        "mosaicml-streaming: [Stream(**s) for s in yaml.safe_load(open(FILE))['streams'].values()]",
    ),
    "hf-datasets": Format(
        datasets_formats.write_interleave,
        token_shares(datasets_formats.read_interleave),
        "rows; of tokens if every row is a packed sequence, else take document_probabilities",
        "datasets: interleave_datasets([load_from_disk(p) for p in datasets], "
        "probabilities=..., seed=..., stopping_strategy=...)",
    ),
    "torchtitan": Format(
        datasets_formats.write_torchtitan,
        token_shares(datasets_formats.read_torchtitan),
        "packed sequences, so of tokens",
        "torchtitan to 0.3.0: [HFDataSource(**s) for s in json.load(open(FILE))['sources']]",
    ),
    "torchtitan-main": Format(
        torchtitan.write_mix,
        torchtitan.read_mix,
        "packed sequences, so of tokens",
        "torchtitan since 2026-08: GrainDataLoader.Config(dataset=mixture()) from FILE",
    ),
    "llama-factory": Format(
        finetuning.write_llama_factory,
        finetuning.read_llama_factory,
        "rows",
        "LLaMA-Factory: add FILE to the training YAML; the names stand in dataset_info.json",
        notes=finetuning.interleave_notes,
    ),
    "ms-swift": Format(
        finetuning.write_ms_swift,
        finetuning.read_ms_swift,
        "rows",
        "ms-swift: swift sft FILE (with your other arguments in it)",
        notes=finetuning.interleave_notes,
    ),
    "trl": Format(
        finetuning.write_trl,
        finetuning.read_trl,
        "rows",
        "TRL: add FILE to the YAML of trl sft --config",
        notes=finetuning.subset_notes,
    ),
    "axolotl": Format(
        finetuning.write_axolotl,
        finetuning.read_axolotl,
        "rows",
        "Axolotl: add FILE's `datasets` to the YAML; set `type` to your template",
        meaning=KEPT,
        notes=finetuning.subset_notes,
    ),
    "axolotl-weight": Format(
        finetuning.write_axolotl_weight,
        finetuning.read_axolotl,
        "rows",
        "Axolotl with datasets[].weight only (0.19.0 does not have it and drops it without a "
        "word): add FILE's `datasets` to the YAML; set `type` to your template",
        meaning=KEPT,
        notes=finetuning.subset_notes,
    ),
    "open-instruct": Format(
        finetuning.write_open_instruct,
        finetuning.read_open_instruct,
        "epochs",
        "open-instruct: --dataset_mixer_list with FILE's words",
        meaning="Each number says how often all rows of a data set are read.",
        notes=finetuning.epoch_notes,
    ),
    "megatron-bridge-sft": Format(
        finetuning.write_bridge_sft,
        finetuning.read_bridge_sft,
        "epochs",
        "Megatron-Bridge: DirectHFSFTDatasetConfig(source=[HFDatasetSourceConfig(**s) for s in "
        "FILE's source], source_weights=...)",
        False,
        meaning="Each number says how often all rows of a source are read.",
        notes=finetuning.epoch_notes,
    ),
    "fastmix-stages": Format(
        plain.write_stages,
        plain.read_stages,
        "tokens",
        "fastmix train: put FILE's keys into the configuration",
    ),
    "csv": Format(
        plain.write_csv, token_shares(plain.read_csv), "tokens", "any spreadsheet", False
    ),
    "weights": Format(
        None, token_shares(plain.read_weights), "as published", "name: weight as YAML or JSON"
    ),
    "row-weights": Format(
        None, row_shares(plain.read_weights), "rows", "name: share of rows as YAML or JSON"
    ),
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
