"""Other trainers' own parsers, and transformers, run in a process with .venv/consumers on its path.

python tests/fastmix_mega/export/consumers.py READER FILE     prints what READER makes of FILE

They are kept apart since their dependencies differ from ours. mosaicml-streaming's root imports
torchvision for its image data sets, which has no build here: its text modules are reached past it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

FOLDER = Path(sys.prefix) / "consumers"


def read_with(reader: str, file: Path, *arguments: Any) -> Any:
    """What the consumer's own code makes of an exported file."""
    assert FOLDER.is_dir(), f"{FOLDER} is missing; `make` installs it"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, reader, str(file), json.dumps(arguments)],
        env=os.environ | {"PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def streaming(file: str, samples: list[int], epoch: int) -> dict[str, int]:
    """Samples of an epoch that mosaicml-streaming draws from every stream."""
    import numpy as np
    import yaml

    package = types.ModuleType("streaming")
    package.__path__ = [str(FOLDER / "streaming")]
    sys.modules["streaming"] = package
    from streaming.base.stream import Stream

    given = yaml.safe_load(Path(file).read_text())["streams"]
    streams = [Stream(**(each | {"remote": None})) for each in given.values()]
    Stream.apply_weights(streams, np.array(samples), epoch, 1)
    return {name: int(stream.choose) for name, stream in zip(given, streams, strict=True)}


def olmo_core(file: str, requested: int, sequence_length: int) -> dict[str, int]:
    """Tokens that OLMo-core takes from every source."""
    import numpy as np
    import yaml
    from olmo_core.data.source_mixture import (
        SourceMixtureConfig,
        SourceMixtureDatasetConfig,
        SourceMixtureList,
    )

    given = yaml.safe_load(Path(file).read_text())["sources"]
    sources = SourceMixtureList(sources=[SourceMixtureConfig(**each) for each in given])
    config = SourceMixtureDatasetConfig(
        source_list=sources,
        requested_tokens=requested,
        global_batch_size=sequence_length * 8,
        render_tables=False,
        quiet=True,
    )
    built = config.build(npdtype=np.uint16, sequence_length=sequence_length)
    return {each.name: sum(path.tokens for path in each.path_tokens) for each in built.sources}


def torchtitan(file: str, draws: int) -> list[int]:
    """Samples that torchtitan's interleaving draws from every source."""
    from torch.utils.data import IterableDataset
    from torchtitan.hf_datasets.interleaved import InterleavedDataset

    class Endless(IterableDataset):
        def __init__(self, number: int) -> None:
            self.number = number

        def __iter__(self) -> Any:
            while True:
                yield self.number

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            assert not state

    given = json.loads(Path(file).read_text())["sources"]
    sources = [Endless(number) for number in range(len(given))]
    mixed = iter(InterleavedDataset(sources, [each["weight"] for each in given], seed=1))
    drawn = [next(mixed) for _ in range(draws)]
    return [drawn.count(number) for number in range(len(given))]


def automodel(file: str) -> dict[str, Any]:
    """The domains' loss multipliers and sampling shares, with paths checked against the blend."""
    import yaml

    _package("nemo_automodel", "components", "training")
    _package("nemo_automodel", "components", "datasets", "llm", "megatron")
    from nemo_automodel.components.datasets.llm.megatron.megatron_utils import get_blend_from_list
    from nemo_automodel.components.training.domain_mixture import (
        DomainMixtureConfig,
        DomainWeightConfig,
    )

    given = yaml.safe_load(Path(file).read_text())
    domains = [DomainWeightConfig(**each) for each in given["domain_mixture"]["domains"]]
    blend = get_blend_from_list(given["dataset"]["paths"])
    built = DomainMixtureConfig(domains=tuple(domains)).build(blend=blend)
    return {
        "sampling": dict(zip(built.names, built.sampling_weights, strict=True)),
        "objective": dict(zip(built.names, built.objective_weights, strict=True)),
        "multipliers": built.loss_multipliers,
    }


def energon(file: str) -> list[dict[str, Any]]:
    """Entries of the `train` split as Energon's strict parser makes them."""
    import yaml

    # Its client of object stores is only imported; its own dependencies are many.
    class Anything(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return object

    client = Anything("multistorageclient")
    client.__path__ = []
    client.types = Anything("multistorageclient.types")  # type: ignore[attr-defined]
    client.resolve_storage_client = lambda url: (None, url)  # type: ignore[attr-defined]
    sys.modules |= {"multistorageclient": client, "multistorageclient.types": client.types}
    from megatron.energon.dataset_config import load_config
    from megatron.energon.metadataset.metadataset import Metadataset

    given = yaml.safe_load(Path(file).read_text()) | {"path": file}
    train = load_config(given, default_type=Metadataset).splits["train"]
    listed = getattr(train, "blend", None) or train.blend_epochized
    keys = ("path", "weight", "repetitions")
    return [{key: getattr(each, key, None) for key in keys} for each in listed]


def olmo_composable(file: str, work_dir: str) -> dict[str, int]:
    """Tokens that OLMo-core's mixing document source takes from every source."""
    import yaml
    from olmo_core.data.composable import MixingDocumentSourceConfig

    given = yaml.safe_load(Path(file).read_text())
    (built,) = MixingDocumentSourceConfig.from_dict(given).build(work_dir)
    labels = [spec["label"] for spec in given["source_specs"]]
    sampled = built.sampled_sources
    return {label: each.num_tokens for label, each in zip(labels, sampled, strict=True)}


def trl(file: str, rows: dict[str, str]) -> dict[str, int]:
    """Rows that TRL keeps of every data set; `rows` has its JSONL file by name."""
    import yaml

    _package("trl", "scripts")
    from trl.scripts.utils import DatasetConfig, DatasetMixtureConfig, get_dataset

    given = yaml.safe_load(Path(file).read_text())["datasets"]
    listed = [
        DatasetConfig(**each | {"path": "json", "data_files": rows[each["path"]]}) for each in given
    ]
    mixed = get_dataset(DatasetMixtureConfig(datasets=listed))["train"]
    return {name: mixed["source"][:].count(name) for name in rows}


def llama_factory(file: str, rows: dict[str, int]) -> dict[str, int]:
    """Rows of every data set in LLaMA-Factory's merged one; `rows` counts each one's own."""
    _package("llamafactory", "data")
    _package("llamafactory", "hparams")
    import datasets
    import yaml

    class Silent:
        def warning_rank0_once(self, _: str) -> None:
            return None

    # Its own logging imports its constants, and those import peft.
    logging = types.ModuleType("llamafactory.extras.logging")
    logging.get_logger = lambda _: Silent()  # type: ignore[attr-defined]
    extras = _package("llamafactory", "extras")
    extras.logging = logging  # type: ignore[attr-defined]
    sys.modules["llamafactory.extras.logging"] = logging
    from llamafactory.data.data_utils import merge_dataset
    from llamafactory.hparams.data_args import DataArguments

    arguments = DataArguments(**yaml.safe_load(Path(file).read_text()))
    own = [datasets.Dataset.from_dict({"name": [n] * rows[n]}) for n in arguments.dataset]
    mixed = merge_dataset(own, arguments, seed=1)["name"][:]
    return {name: mixed.count(name) for name in rows}


def axolotl(file: str, rows: dict[str, str]) -> dict[str, Any]:
    """Rows by Axolotl's own schema and the slice that it hands to `datasets`; keys it drops."""
    _package("axolotl", "utils", "schemas")
    import datasets
    import yaml

    helpers = types.ModuleType("axolotl.utils.schemas.utils")
    helpers.handle_legacy_message_fields_logic = lambda data: data  # type: ignore[attr-defined]
    sys.modules["axolotl.utils.schemas.utils"] = helpers
    from axolotl.utils.schemas.datasets import SFTDataset

    kept, dropped = {}, set()
    for each in yaml.safe_load(Path(file).read_text())["datasets"]:
        entry = SFTDataset(**each).model_dump(exclude_none=True)
        dropped |= set(each) - set(entry)
        split = entry.get("split", "train")
        taken = datasets.load_dataset("json", data_files=rows[entry["path"]], split=split)
        kept[entry["path"]] = len(taken)
    return {"kept": kept, "dropped": sorted(dropped)}


def _package(*names: str) -> types.ModuleType:
    """Packages whose `__init__` would import a whole trainer, as folders alone."""
    # Their own dependencies are newer than those that other consumers pin: ours come first.
    if str(FOLDER) in sys.path:
        sys.path.remove(str(FOLDER))
        sys.path.append(str(FOLDER))
    for depth in range(1, len(names) + 1):
        dotted = ".".join(names[:depth])
        if dotted not in sys.modules:
            package = types.ModuleType(dotted)
            package.__path__ = [str(FOLDER.joinpath(*names[:depth]))]
            sys.modules[dotted] = package
    return sys.modules[".".join(names)]


def make_models(
    folder: str, models: dict[str, dict[str, Any]], tokens: list[list[int]]
) -> dict[str, Any]:
    """Random models by transformers, each in a folder of its name, saved as it saves them.

    Args:
        folder: where.
        models: by name, the arguments of AutoConfig.for_model, and `shard` and `dtype`.
        tokens: [b, s].

    Returns:
        Their fp32 logits [b, s, V], by name.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    for name, given in models.items():
        options = dict(given)
        shard, dtype = options.pop("shard", "5GB"), options.pop("dtype", "float32")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options))
        for key, parameter in model.named_parameters():
            # Fresh norms are 1 and biases 0, which would hide mistakes.
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, float("norm" in key), 0.3)
            else:
                torch.nn.init.normal_(parameter, 0.0, 0.15)
        model.to(getattr(torch, dtype)).save_pretrained(Path(folder) / name, max_shard_size=shard)
    return logits(folder, list(models), tokens)


def logits(folder: str, names: list[str], tokens: list[list[int]]) -> dict[str, Any]:
    """fp32 logits [b, s, V] of models in folders, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    found = {}
    for name in names:
        model = AutoModelForCausalLM.from_pretrained(Path(folder) / name, dtype=torch.float32)
        with torch.no_grad():
            found[name] = model(torch.tensor(tokens)).logits.tolist()
    return found


def exported(
    folder: str,
    names: list[str],
    tokens: list[list[int]],
    generating: str,
    texts: list[str],
    count: int,
) -> dict[str, Any]:
    """`logits` of several folders, and `generate` with one: one start of transformers for both."""
    return {
        "logits": logits(folder, names, tokens),
        "generated": generate(generating, texts, count),
    }


def generate(folder: str, texts: list[str], count: int) -> list[dict[str, Any]]:
    """Greedy continuations by transformers' standard calls, with the folder's own tokenizer: alone,
    in a padded batch, and by a pipeline."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    options: dict[str, Any] = {"max_new_tokens": count, "do_sample": False}
    piped = pipeline("text-generation", folder, dtype=torch.float32)
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    padded = model.generate(**batch, **options)[:, batch.input_ids.shape[1] :]
    found = []
    for text, row in zip(texts, padded, strict=True):
        given = tokenizer(text, return_tensors="pt")
        prompt = given.input_ids
        new = model.generate(**given, **options)[0, prompt.shape[1] :]
        (told,) = piped(text, return_full_text=False, **options)
        found.append(
            {
                "prompt": prompt[0].tolist(),
                "new": new.tolist(),
                "padded": row.tolist(),
                "text": tokenizer.decode(new, skip_special_tokens=True),
                "piped": told["generated_text"],
            }
        )
    return found


def encode(folder: str, texts: list[str]) -> dict[str, Any]:
    """The folder's own tokenizer: ids of each text, and what it would hand to a model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return {
        "ids": [tokenizer(text).input_ids for text in texts],
        "inputs": sorted(tokenizer(texts[0])),
        "pad": tokenizer.pad_token_id,
    }


if __name__ == "__main__":
    readers = {
        **{"streaming": streaming, "olmo_core": olmo_core, "torchtitan": torchtitan},
        **{"automodel": automodel, "energon": energon, "olmo_composable": olmo_composable},
        **{"trl": trl, "llama_factory": llama_factory, "axolotl": axolotl},
        **{"make_models": make_models, "exported": exported, "encode": encode},
    }
    print(json.dumps(readers[sys.argv[1]](sys.argv[2], *json.loads(sys.argv[3]))))
