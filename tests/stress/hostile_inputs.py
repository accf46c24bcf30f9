"""Files as somebody may send them who means us harm: one function a kind of input.

Each writes into `here/in` (and `here/out` for a run folder, which is an output too), and returns
what is to be tried on it: words of the command, or a function.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fastmix_mega.checkpoint.manifest import NAME, CheckpointManifest, record_file
from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.export.formats import FORMATS
from fastmix_mega.weights.huggingface import HuggingFaceWeights
from tests.stress.fuzz import spoil_bytes
from tests.stress.hostile_text import a_value, hostile_json, hostile_yaml, spoiled, to_json

Attempt = Sequence[str] | Callable[[], object]
"""Words after `fastmix`, or a function that ends as a command's work does."""


@dataclass(frozen=True)
class World:
    """What is valid before it is spoiled."""

    folder: Path
    settings: dict[str, Any]
    """A configuration whose run folder is to be replaced."""
    blends: dict[str, str]
    """A mixture in every format."""

    @property
    def model(self) -> Path:
        """A Hugging Face folder."""
        return self.folder / "model"

    @property
    def run(self) -> Path:
        """The run folder of a search, with checkpoints."""
        return self.folder / "run"

    @property
    def chat(self) -> Path:
        """A tokenizer.json with its configuration."""
        return self.folder / "chat"


class Attack:
    """Runs a program when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}/attacked",)


def huggingface(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """config.json, the tensors' header, their index, links."""
    folder = here / "in" / "model"
    shutil.copytree(world.model, folder)
    place = dice.random()
    if place < 0.35:
        path = folder / "config.json"
        valid = path.read_bytes()
        hostile = dice.random() < 0.2
        path.write_bytes(
            hostile_json(dice, valid) if hostile else to_json(spoiled(json.loads(valid), dice))
        )
    elif place < 0.75:
        _spoil_tensors(folder / "model.safetensors", dice)
    elif place < 0.9:
        _spoil_index(folder, dice)
    else:
        path = folder / dice.choice(("config.json", "model.safetensors", "tokenizer.json"))
        path.unlink(missing_ok=True)
        path.symlink_to(dice.choice(("/dev/zero", "/etc/passwd", ".", path.name, "/proc/self/mem")))

    def read() -> None:
        weights = HuggingFaceWeights(folder)
        for name in weights.names():
            weights.read(name)
        weights.identity()

    return [["import", str(folder), "--from", "huggingface", "-o", str(here / "out/k.yaml")], read]


def _spoil_tensors(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = dice.randrange(6)
    if kind == 0:
        path.write_bytes(spoil_bytes(content, dice))
        return
    if kind == 1:
        lie = dice.choice((0, 1, length - 1, length + 1, 2**32, 2**62, 2**64 - 1, 99_999_999))
        path.write_bytes(struct.pack("<Q", lie) + content[8:])
        return
    if kind == 2:
        body = body[: dice.randrange(len(body))]
    elif kind == 3:
        name = dice.choice([each for each in header if each != "__metadata__"])
        key = dice.choice(("dtype", "shape", "data_offsets"))
        sizes = (-1, 0, 1, 7, 2**31, 2**62, 2**64 - 1, 10**30)
        values = {
            "dtype": ("F64", "F8_E4M3", "I64", "BOOL", "U8", "F16", "C64", "F4", "", None, 3),
            "shape": ([], [dice.choice(sizes)], [dice.choice(sizes)] * 2, [2**32] * 3, "x", None),
            "data_offsets": ([0, dice.choice(sizes)], [dice.choice(sizes), 0], [0], None, [1, 1]),
        }
        header[name][key] = dice.choice(values[key])
    else:
        header = spoiled(header, dice)
    text = hostile_json(dice, to_json(header)) if kind == 5 else to_json(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def _spoil_index(folder: Path, dice: random.Random) -> None:
    names = list(
        json.loads((folder / "model.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    )
    files = ("model.safetensors", "../secret", "/etc/passwd", "x.safetensors", "", ".", 3, None)
    mapped = {name: dice.choice(files[:1] * 20 + files) for name in names if name[0] != "_"}
    valid = to_json({"metadata": {"total_size": a_value(dice)}, "weight_map": mapped})
    (folder / "model.safetensors.index.json").write_bytes(
        hostile_json(dice, valid) if dice.random() < 0.3 else valid
    )


def tokenizer(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """tokenizer.json and sentencepiece models."""
    folder = here / "in" / "chat"
    shutil.copytree(world.chat, folder)
    if dice.random() < 0.3:
        path = folder / "tokenizer.model"
        content = (world.folder / "tokenizer.model").read_bytes()
        for _ in range(dice.choice((1, 2, 8))):
            content = spoil_bytes(content, dice)
        path.write_bytes(content)
    else:
        path = folder / "tokenizer.json"
        valid = path.read_bytes()
        if dice.random() < 0.2:
            path.write_bytes(hostile_json(dice, valid))
        else:
            path.write_bytes(to_json(_spoiled_tokenizer(json.loads(valid), dice)))
        if dice.random() < 0.2:
            settings = folder / "tokenizer_config.json"
            content = settings.read_bytes()
            settings.write_bytes(to_json(spoiled(json.loads(content), dice)))
            if dice.random() < 0.3:
                settings.write_bytes(hostile_json(dice, content))

    def encode() -> None:
        found = Tokenizer(path)
        found.encode(["what is the sum", "", "<|im_end|> ä 😀 a a a a a a a a a a a a a a a!"])
        found.encode_literally(["the sum", "<|im_end|>"], "space")
        found.encode_spelled(["<|im_end|> the sum"])

    prefix = str(here / "out/t")
    text = str(world.folder / "text.jsonl")
    words = ["data", "preprocess", text, "--tokenizer", str(path), "--output-prefix", prefix]
    return [encode, words] if dice.random() < 0.3 else [encode]


def _spoiled_tokenizer(content: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    many = "a" * dice.choice((10, 3_000, 300_000))
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": many}
    slow = {
        "type": "Split",
        "pattern": {"Regex": dice.choice(("(a+)+$", "(a*)*b", "(((", "a{9999}"))},
    }
    kind = dice.randrange(8)
    if kind == 0:
        token = {"id": dice.choice((10**6, 10**9, 2**32 - 1, 2**33, -1)), "content": "<|x|>"}
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        content["added_tokens"].append(token | dict.fromkeys(flags, dice.random() < 0.5))
    elif kind == 1:
        steps = [grow] * dice.choice((1, 2, 6))
        content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    elif kind == 2:
        split = slow | {"behavior": "Isolated", "invert": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split]}
    elif kind == 3:
        names = list(content["model"]["vocab"])
        name = dice.choice(names)
        content["model"]["vocab"][name] = dice.choice((10**9, 2**32 - 1, -1, 0, 2**40))
    elif kind == 4:
        words = dice.choice((["a", "b"], ["zz", "yy"], "a b", ["a"], [3, 4]))
        content["model"]["merges"] = [words] * dice.choice((1, 5))
    elif kind == 5:
        kinds = ("WordPiece", "WordLevel", "Unigram", "BPE", "X")
        content["model"] = {"type": dice.choice(kinds), "vocab": dice.choice(({}, [], {"a": 0}))}
        content["model"] |= {"unk_id": a_value(dice)} if dice.random() < 0.5 else {}
    else:
        spoiled(content, dice)
    return content


TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='aaaaaaaa') %}{% for a in range(40) %}{% set n.x = n.x ~ n.x %}"
    "{% endfor %}{{ n.x }}",
    "{{ 'a' * 10000000000 }}",
    "{{ 'a'.center(9999999999) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ 9 ** 9 ** 9 }}",
    "{{ (9 ** 99999) ** 999 }}",
    "{{ [1] * 9999999999 }}",
    "{{ range(99999)|list|tojson }}",
    "{{ (messages|string) * 1000000 }}",
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch attacked') }}",
    "{{ self.__init__.__globals__ }}{{ lipsum.__globals__ }}",
    "{{ messages.__class__.__base__.__subclasses__()|length }}",
    "{% include '/etc/passwd' %}{% import 'os' as os %}",
    "{{ lipsum(n=1000000) }}",
    "{{ messages|map('upper')|batch(1)|list }}",
    "{{ messages[0].content|replace('a', 'b' * 99999999) }}",
    "{{ 'a'|indent(999999999) }}{{ 'a\n'|indent(99999999) }}",
    "{{ strftime_now('%Y' * 9999999) }}",
    "{{ ('x' * 9999)|urlize }}{{ ('((((' * 9999)|striptags }}",
    "{{ ('a ' * 999999)|wordwrap(1) }}",
    "{% set x = [] %}{% for m in messages %}{{ x.append(m) }}{% endfor %}",
    "{{ raise_exception('a' * 99999999) }}",
    "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
    "{% if 1 %}" * 2000,
    "{% for m in messages %}{{ m.content }}\ufdd0\ufdd1{% endfor %}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "{{ 1 " + "+ 1" * 20000 + " }}",
    "\ud800",
)
SLOW_TEMPLATES = 2
"""The first ones take all the time that they may."""


def template(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """A chat template, in a file or in a tokenizer_config.json."""
    folder = here / "in" / "chat"
    shutil.copytree(world.chat, folder)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_bytes())
    first = 0 if dice.random() < 0.1 else SLOW_TEMPLATES
    text = dice.choice(TEMPLATES[first:])
    if dice.random() < 0.4:
        text = spoil_bytes(content["chat_template"].encode(), dice).decode("utf-8", "replace")
    content["chat_template"] = text
    if dice.random() < 0.2:
        content["chat_template"] = spoiled([{"name": "default", "template": text}], dice)
    settings.write_bytes(to_json(content))
    where = "hf"
    if dice.random() < 0.4:
        where = str(folder / "t.jinja")
        Path(where).write_bytes(text.encode("utf-8", "surrogatepass"))
    words = ["data", "preprocess", str(world.folder / "chats.jsonl"), "--mode", "sft"]
    words += ["--tokenizer", str(folder / "tokenizer.json"), "--template", where]
    return [[*words, "--output-prefix", str(here / "out/t"), "--max-bad", "1000000"]]


def tokens(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """Absurd counts in an index, manifests that lie, links, holes."""
    prefix = here / "in" / "tokens"
    for kind in ("bin", "idx", "manifest.json"):
        shutil.copy(f"{world.folder}/corpora/alpha.{kind}", f"{prefix}.{kind}")
    index, manifest = Path(f"{prefix}.idx"), Path(f"{prefix}.manifest.json")
    content, place = index.read_bytes(), dice.random()
    if place < 0.4:
        counts = (0, 1, 2**20, 2**31, 2**40, 2**60, 2**63, 2**64 - 1)
        lies = struct.pack("<QQ", dice.choice(counts), dice.choice(counts))
        index.write_bytes(content[:18] + lies + content[34:])
    elif place < 0.7:
        valid = manifest.read_bytes()
        hostile = dice.random() < 0.3
        manifest.write_bytes(
            hostile_json(dice, valid) if hostile else to_json(spoiled(json.loads(valid), dice))
        )
    elif place < 0.8:
        # Files with holes, as large as their index says.
        count = 10 ** dice.choice((6, 9, 12))
        index.write_bytes(content[:18] + struct.pack("<QQ", count, 2))
        os.truncate(index, 34 + 12 * count + 16)
        os.truncate(f"{prefix}.bin", dice.choice((0, 2 * count)))
    else:
        path = dice.choice((index, manifest, Path(f"{prefix}.bin")))
        path.unlink()
        path.symlink_to(dice.choice(("/dev/zero", "/etc/passwd", path.name, "/dev/null", ".")))
    output = str(here / "out" / "t")
    blend = here / "in" / "blend.txt"
    blend.write_text(f"1 {prefix}\n")
    return [
        ["data", "verify", str(prefix), *(["--deep"] if dice.random() < 0.7 else [])],
        dice.choice(
            (
                ["data", "inspect", str(prefix)],
                ["data", "merge", str(prefix), "--output-prefix", output],
                ["data", "split", str(prefix), "--output-prefix", output],
                ["audit", str(blend), "--budget-tokens", "1M"],
            )
        ),
    ]


def configuration(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """YAML of every kind that a user gives: configurations, limits, sizes."""
    settings = world.settings | {"run_dir": str(here / "out" / "run")}
    path = here / "in" / "file.yaml"
    kind = dice.choice(("config", "config", "constraints", "sizes"))
    if kind == "config":
        valid = yaml.safe_dump(settings)
    elif kind == "constraints":
        valid = "budget_tokens: 1000000\nmax_epochs: 4\nsources: {alpha: {max: 0.5}}\n"
    else:
        valid = "alpha: 10k\nbeta: {tokens: 1000, rows: 10}\n"
    if dice.random() < 0.5:
        path.write_bytes(hostile_yaml(dice, valid))
    else:
        content = spoiled(yaml.safe_load(valid), dice)
        text = yaml.safe_dump(content, allow_unicode=dice.random() < 0.5)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    run, out = str(world.run), str(here / "out/x")
    if kind == "constraints":
        return [["export", run, "--to", "megatron", "-o", out, "--constraints", str(path)]]
    if kind == "sizes":
        blend = str(world.folder / "blend.weights")
        sizes = ["--sizes", str(path)]
        return [
            ["import", blend, "--from", "weights", "-o", out, *sizes],
            ["audit", blend, "--budget-tokens", "1M", *sizes],
        ]
    mode = dice.choice(("search", "train"))
    return [["check", str(path), "--mode", mode, "--nproc", dice.choice(("1", "2"))]]


def mixture(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """Weights that are none, absurd numbers, names and paths that lead elsewhere."""
    path = here / "in" / "mixture.json"
    valid = (world.run / "mixture.json").read_bytes()
    content = json.loads(valid)
    kind = dice.random()
    if kind < 0.2:
        path.write_bytes(hostile_json(dice, valid))
    elif kind < 0.6:
        source = dice.choice(content["sources"])
        source[dice.choice(("weight", "name", "prefix", "tokens", "stderr", "gain"))] = a_value(
            dice
        )
        path.write_bytes(to_json(content))
    else:
        path.write_bytes(to_json(spoiled(content, dice)))
    given, out = str(path), str(here / "out" / "x")
    writable = [name for name, form in FORMATS.items() if form.write]
    words = ["export", given, "--to", dice.choice(writable), "-o", out]
    words += dice.choice(([], ["--budget-tokens", "2T"], ["--paths", "s3://b/{name}"]))
    config = str(world.folder / "config.yaml")
    own = f"run_dir={here / 'out' / 'run'}"
    return [
        words,
        dice.choice(
            (
                ["compare", given, str(world.run)],
                ["pool", given, str(world.run), "-o", f"{out}.json"],
                ["check", config, "--mode", "train", own, f"mixture={given}"],
                ["audit", given, "--budget-tokens", "1M"],
                ["surface", str(world.run), "--mixture", given],
                ["watch", str(world.run), "--mixture", given],
            )
        ),
    ]


def blend(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """A trainer's or a publication's mixture, in any format."""
    name = dice.choice(list(world.blends))
    path, valid = here / "in" / "blend", world.blends[name]
    kind = dice.random()
    if kind < 0.35:
        content = valid.encode()
        for _ in range(dice.choice((1, 1, 2, 4))):
            content = spoil_bytes(content, dice)
        path.write_bytes(content)
    elif kind < 0.8:
        path.write_bytes(_spoiled_document(valid, dice))
    elif dice.random() < 0.5:
        path.write_bytes(hostile_yaml(dice, valid))
    else:
        path.write_bytes(hostile_json(dice, valid.encode()))
    readable = name if FORMATS[name].read and dice.random() < 0.9 else "weights"
    return [
        ["import", str(path), "--from", readable, "-o", str(here / "out/m.json")],
        ["audit", str(path), "--budget-tokens", "1M"],
    ]


def _spoiled_document(text: str, dice: random.Random) -> bytes:
    """One that is YAML or JSON is spoiled as plain data."""
    try:
        return to_json(spoiled(json.loads(text), dice))
    except ValueError:
        pass
    try:
        content = spoiled(yaml.safe_load(text), dice)
        return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError):
        return spoil_bytes(text.encode(), dice)


def corpus(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """Text that unpacks to gigabytes, rows that no table holds."""
    lines = (world.folder / "text.jsonl").read_bytes()
    kind = dice.randrange(7)
    path = here / "in" / "text.jsonl"
    if kind == 0:
        unit = dice.choice((b"\0", b"a", b"[", b'{"text":', b"\n"))
        path = here / "in" / "text.jsonl.gz"
        path.write_bytes(gzip.compress(unit * dice.choice((10**5, 10**7)) + lines, 9))
    elif kind == 1:
        path = here / "in" / "text.parquet"
        content = (world.folder / "text.parquet").read_bytes()
        for _ in range(dice.choice((1, 2, 8))):
            content = spoil_bytes(content, dice)
        path.write_bytes(content)
    elif kind == 2:
        path = here / "in" / "text.csv"
        path.write_bytes(spoil_bytes(b'text,b\n"a ""b""",1\n' * 9, dice) + b'"' * 3 + b"\n")
    elif kind == 3:
        path.write_bytes(hostile_json(dice, b'[{"text": "a b"}, {"text": "c d"}]'))
    elif kind == 4:
        path.write_bytes(lines + hostile_json(dice, b'{"text": "a b"}') + b"\n" + lines)
    elif kind == 5:
        rows = [spoiled(json.loads(line), dice) for line in lines.splitlines()[:5]]
        path.write_bytes(b"\n".join(map(to_json, rows)))
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(dice.choice(("/dev/null", path.name, "/dev/zero", "/proc/self/mem", ".")))
    model = str(world.folder / "tokenizer.model")
    words = ["data", "preprocess", str(path), "--tokenizer", model, "--max-bad", "1000000"]
    return [[*words, "--output-prefix", str(here / "out/t")]]


URLS = (
    *("file:///etc/passwd", "file:///dev/zero", "local:///etc/hostname", "memory://nowhere/x"),
    *("reference://a::file:///etc/passwd", "zip://a::file:///etc/passwd", "simplecache::file:///x"),
    *("filecache::file:///etc/passwd", "tar://x::file:///dev/zero", "dir://::file:///etc"),
    *("s3://bucket/x", "gs://bucket/x", "hf://datasets/x/y", "git://x", "github://a:b@c/x"),
    *("ssh://localhost/x", "nosuch://x", "://", "a://", "data:text/plain,x", "jupyter://x"),
    *("generic://x", "async_wrapper://x", "dask://x", "wandb://x", "arrow_hdfs://x", "gist://x"),
    *("pyscript://x", "libarchive://x", "blockcache::memory://x", "root://x", "dvc://x"),
)


def remote(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """URLs where a file's name is expected."""
    url = dice.choice(URLS)
    if dice.random() < 0.3:
        url = spoil_bytes(url.encode(), dice).decode("utf-8", "replace").replace("\0", "")
    settings = json.loads(json.dumps(world.settings)) | {"run_dir": str(here / "out" / "run")}
    dice.choice([*settings["sources"], *settings["targets"]])["prefix"] = url
    config = here / "in" / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    content = json.loads((world.run / "mixture.json").read_bytes())
    content["sources"][0]["prefix"] = [url, url] if dice.random() < 0.3 else url
    path = here / "in" / "mixture.json"
    path.write_bytes(to_json(content))
    model = ["--tokenizer", str(world.folder / "tokenizer.model")]
    out = str(here / "out" / "t")
    formats = ("megatron", "energon", "csv", "llama-factory", "trl")
    return [
        dice.choice(
            (
                ["check", str(config)],
                ["data", "verify", url],
                ["data", "preprocess", url, *model, "--output-prefix", out],
                ["audit", str(path), "--budget-tokens", "1M"],
                ["export", str(path), "--to", dice.choice(formats), "-o", out],
            )
        )
    ]


def run_folder(world: World, dice: random.Random, here: Path) -> list[Attempt]:
    """Somebody else's run: records, checkpoints with programs in them, links."""
    run = here / "out" / "run"
    shutil.copytree(world.run, run)
    place = dice.random()
    if place < 0.45:
        _spoil_records(run, dice)
    elif place < 0.9:
        _spoil_checkpoint(run / "checkpoints" / "step_24", dice, here / "outside")
    else:
        path = run / dice.choice(("config.yaml", "mixture.json", "history.jsonl", "report.html"))
        path.unlink(missing_ok=True)
        path.symlink_to(dice.choice((here / "outside" / "kept", "/dev/zero", path.name, ".")))
    given = str(run)
    model = ["export", given, "--to", "huggingface", "-o", str(here / "out" / "model")]
    if place < 0.45 or place >= 0.9:
        files = [["report", given], ["watch", given], ["surface", given]]
        files += [["compare", given, str(world.run)], ["verify", given]]
        return dice.sample(files, 2)
    return [["verify", given], model]


def _spoil_records(run: Path, dice: random.Random) -> None:
    names = ("config.yaml", "run.json", "history.jsonl", "metrics.jsonl", "mixture.json")
    path = run / dice.choice((*names, "surface.json"))
    valid = path.read_bytes()
    if path.suffix == ".yaml":
        content = spoiled(yaml.safe_load(valid), dice)
        text = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")
        path.write_bytes(hostile_yaml(dice, valid.decode()) if dice.random() < 0.4 else text)
    elif path.suffix == ".jsonl":
        lines = valid.splitlines()
        at = dice.randrange(len(lines))
        hostile = dice.random() < 0.3
        row = spoiled(json.loads(lines[at]), dice)
        lines[at] = hostile_json(dice, lines[at]).replace(b"\n", b" ") if hostile else to_json(row)
        path.write_bytes(b"\n".join(lines) + b"\n")
    else:
        hostile = dice.random() < 0.3
        path.write_bytes(
            hostile_json(dice, valid) if hostile else to_json(spoiled(json.loads(valid), dice))
        )


def _spoil_checkpoint(folder: Path, dice: random.Random, outside: Path) -> None:
    """Spoil a file; more often than not the manifest is made to agree."""
    import torch

    manifest = CheckpointManifest.model_validate(_unsigned(folder / NAME))
    states = folder / "mp_rank_00_model_states.pt"
    kind = dice.randrange(8)
    if kind == 0:
        content = spoiled(json.loads((folder / NAME).read_bytes()), dice)
        (folder / NAME).write_bytes(to_json(content))
        return
    if kind == 1:
        content = spoiled(_unsigned(folder / NAME), dice)
        _sign(folder, content)
        return
    if kind == 2:
        torch.save({"module": Attack(outside)}, states)
    elif kind == 3:
        states.write_bytes(pickle.dumps({"module": Attack(outside)}, dice.choice((0, 2, 4))))
    elif kind == 4:
        with zipfile.ZipFile(states) as old:
            entries = {name: old.read(name) for name in old.namelist()}
        largest = max(entries, key=lambda name: len(entries[name]))
        with zipfile.ZipFile(states, "w", zipfile.ZIP_DEFLATED) as new:
            for name, content in entries.items():
                bomb = name == largest and dice.random() < 0.7
                new.writestr(name, bytes(700_000_000) if bomb else content)
    elif kind == 5:
        values: tuple[Any, ...] = (
            *({}, [], 3, {"module": None}, {"module": {"a": 3}}, {"module": {"": torch.ones(1)}}),
            {"module": {3: torch.ones(1)}},
            {"module": dict.fromkeys(torch.load(states, weights_only=False)["module"], "x")},
            {"module": {"embedding.word_embeddings.weight": torch.ones(1).expand(1 << 40)}},
        )
        torch.save(dice.choice(values), states)
    elif kind == 6:
        states.unlink()
        (outside / "kept.pt").write_bytes(b"x")
        states.symlink_to(dice.choice((outside / "kept.pt", "/dev/zero", states.name)))
    else:
        states.write_bytes(spoil_bytes(states.read_bytes(), dice))
    if kind != 6 and dice.random() < 0.8:
        files = manifest.files | {states.name: record_file(states)}
        manifest.model_copy(update={"files": files}).write(folder)


def _unsigned(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_bytes())
    del content["sha256"]
    return content


def _sign(folder: Path, content: Any) -> None:
    """A checksum that anybody can make."""
    import hashlib

    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    (folder / NAME).write_bytes(to_json(content | {"sha256": digest}))


KINDS: dict[str, Callable[[World, random.Random, Path], list[Attempt]]] = {
    "huggingface": huggingface,
    "tokenizer": tokenizer,
    "template": template,
    "tokens": tokens,
    "configuration": configuration,
    "mixture": mixture,
    "blend": blend,
    "corpus": corpus,
    "remote": remote,
    "run": run_folder,
}
