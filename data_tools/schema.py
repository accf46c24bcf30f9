"""Read a YAML file of the data tools into its schema, or say every mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fastmix_mega.config.parse import read_yaml
from fastmix_mega.errors import UserError

Schema = TypeVar("Schema", bound=BaseModel)


def read_schema(path: Path, schema: type[Schema]) -> Schema:
    """The file's content as `schema`.

    Raises:
        UserError: if it cannot be read, or with every mistake in it, one a line.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("\n".join([f"{path}: {len(lines)} mistake(s)", *lines])) from None
