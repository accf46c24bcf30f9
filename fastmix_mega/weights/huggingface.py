"""The weights in a Hugging Face folder: config.json and safetensors, whole or in shards.

A parameter is put together when it is asked for, so that a process reads no more than what it
takes. Pickles are never opened.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastmix_mega.config.mistakes import shorten
from fastmix_mega.config.sections import ModelSection
from fastmix_mega.data.tokenizer_limits import LARGEST
from fastmix_mega.errors import UserError
from fastmix_mega.model.presets import ModelShape, resolve_shape
from fastmix_mega.reading import read_json, read_limited
from fastmix_mega.weights.architecture import Architecture, read_architecture
from fastmix_mega.weights.names import HEAD, join, parameter_names, their_names, their_shapes

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
DTYPES = ("F32", "BF16", "F16")
TOKENIZERS = (JSON, MODEL) = ("tokenizer.json", "tokenizer.model")
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
"""What of a file its checksum reads: its start (the header), its end, and places between."""


class HuggingFaceWeights:
    """A Llama-, Mistral-, Qwen2- or Qwen3-like model.

    Args:
        folder: with config.json, and model.safetensors or its index.

    Attributes:
        architecture: what config.json says.
        model: the `model` section of a configuration for it.
        tokenizers: SHA-256 of the tokenizer files, by path.
        window: tokens that attention looks back, where it is not all of them.

    Raises:
        UserError: naming what is missing, damaged or unsupported.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.architecture: Architecture = read_architecture(_json(self.folder / "config.json"))
        self.model: ModelSection = self.architecture.model
        self.window = self.architecture.window
        self.shape: ModelShape = resolve_shape(self.model, self.model.vocab_size or 0)
        self.tokenizers = {
            str(path): hashlib.sha256(read_limited(path, LARGEST)).hexdigest()
            for path in (self.folder / name for name in TOKENIZERS)
            if path.is_file()
        }
        self._files = _tensor_files(self.folder)
        self._open: dict[str, Any] = {}
        self._require_every_tensor()

    def names(self) -> list[str]:
        """Of all parameters, as this model names them."""
        return list(parameter_names(self.shape))

    def read(self, name: str) -> Tensor:
        """A whole parameter, on the CPU, in the file's dtype."""
        parts = [self._handle(self._files[each]).get_tensor(each) for each in their_names(name)]
        return join(name, parts, self.shape)

    def damage(self, rank: int = 0, size: int = 1) -> list[str]:
        """Nothing: safetensors hold no checksums; lengths were compared when they were opened."""
        del rank, size
        return []

    def identity(self) -> dict[str, Any]:
        """What a run that starts here records."""
        digest = hashlib.sha256((self.folder / "config.json").read_bytes())
        for file in sorted(set(self._files.values())):
            digest.update(file.encode())
            digest.update(_sampled_digest(self.folder / file))
        return {"kind": "huggingface", "path": str(self.folder), "sha256": digest.hexdigest()}

    def _handle(self, file: str) -> Any:
        if file not in self._open:
            path = self.folder / file
            try:
                self._open[file] = safe_open(path, framework="pt")
            except FileNotFoundError:
                raise UserError(f"{path} is missing; {INDEX} names it") from None
            except (OSError, SafetensorError) as error:
                raise UserError(f"{path} is damaged: {shorten(str(error))}") from None
        return self._open[file]

    def _require_every_tensor(self) -> None:
        """Raises: UserError unless the files hold exactly this model's tensors."""
        if self.shape.layers > len(self._files):
            raise UserError(
                f"config.json names {self.shape.layers} layers, but {self.folder} has only "
                f"{len(self._files)} tensors"
            )
        wanted: dict[str, tuple[int, ...]] = {}
        for name in parameter_names(self.shape):
            shapes = their_shapes(name, self.shape)
            wanted |= dict(zip(their_names(name), shapes, strict=True))
        missing = [name for name in wanted if name not in self._files]
        if missing:
            raise UserError(
                f"{self.folder} has no tensor {missing[0]}"
                + (f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else "")
            )
        # A tied head may be stored all the same; older files keep the rotary frequencies.
        known = {*wanted, HEAD} if self.shape.tie_embeddings else set(wanted)
        for name, file in self._files.items():
            if name not in known and not name.endswith("rotary_emb.inv_freq"):
                raise UserError(
                    f"{self.folder / file} has the tensor {name}, for which a "
                    f"{self.architecture.family} model of this config.json has no place"
                )
        for name, shape in wanted.items():
            part = self._handle(self._files[name])
            if name not in part.keys():  # noqa: SIM118 - not a dictionary
                raise UserError(f"{self.folder / self._files[name]} has no tensor {name}")
            stored = part.get_slice(name)
            if tuple(stored.get_shape()) != shape:
                raise UserError(
                    f"{self.folder / self._files[name]}: {name} has the shape "
                    f"{list(stored.get_shape())}, but config.json asks for {list(shape)}"
                )
            if stored.get_dtype() not in DTYPES:
                raise UserError(
                    f"{self.folder / self._files[name]}: {name} is {stored.get_dtype()}; "
                    f"supported are {', '.join(DTYPES)}: take the unquantised weights"
                )


def _tensor_files(folder: Path) -> dict[str, str]:
    """The file of every tensor, by the tensor's name."""
    if (folder / INDEX).is_file():
        content = _json(folder / INDEX)
        files = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not files:
            raise UserError(f"{folder / INDEX} has no weight_map")
        for file in set(files.values()):
            if not isinstance(file, str) or Path(file).name != file:
                told = shorten(repr(file))
                raise UserError(f"{folder / INDEX} names {told}, which is no file of the folder")
        return files
    path = folder / SINGLE
    if path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                return dict.fromkeys(file.keys(), SINGLE)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is damaged: {shorten(str(error))}") from None
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise UserError(
            f"{folder} holds its weights as pickles, which can run programs when they are opened; "
            "convert them to safetensors (save_pretrained(..., safe_serialization=True))"
        )
    raise UserError(f"{folder} has no {SINGLE} and no {INDEX}")


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UserError:
        raise
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not valid JSON") from None


def _sampled_digest(path: Path) -> bytes:
    """SHA-256 of a file's length and of parts from all over it: cheap for hundreds of gigabytes."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        last = max(0, size - SAMPLE_BYTES)
        for number in range(SAMPLES):
            file.seek(last * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
