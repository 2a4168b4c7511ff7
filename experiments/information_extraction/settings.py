"""The settings of an extractor, ``extractor.json``: nothing in it is believed before it is checked."""

import json
import math
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from experiments.bert import model as bert
from experiments.information_extraction import pointer
from experiments.information_extraction.data import DataError

FILE = "extractor.json"


class Settings(NamedTuple):
    """What the file says beside the sizes."""

    sizes: Any
    """Of the model."""
    predicates: tuple[str, ...]
    open_predicates: bool
    thresholds: tuple[float, float]
    max_length: int


def read(directory: Path, declared: type, num_numbers: int, num_arrays: int) -> Settings:
    """Reads the file.

    Args:
      directory: of the extractor.
      declared: the dataclass of the sizes.
      num_numbers: of all weights; no size is larger.
      num_arrays: of the weights; there are no more layers.

    Raises:
      DataError: if the file is missing or damaged, a setting is missing or left over, or one is out of its range.
    """
    path = directory / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sizes = of_type(declared, found.pop("sizes"), "sizes")
        inner = sizes.get("pretrained")
        for name, size in [*sizes.items(), *(vars(inner).items() if inner else ())]:
            limit = num_arrays if name == "num_layers" else num_numbers
            if type(size) is int and not 0 <= size <= limit:
                raise ValueError(f"{name} must be 0 to {limit}, for the weights are no more; got {size}")
        settings = Settings(declared(**sizes), **of_type(Settings, found, "the file"))
        if len(settings.predicates) != settings.sizes.num_predicates:
            number = settings.sizes.num_predicates
            raise ValueError(f"predicates must be {number}, as the weights are; got {len(settings.predicates)}")
        if not 1 <= settings.max_length <= settings.sizes.max_length:
            raise ValueError(f"max_length must be 1 to {settings.sizes.max_length}; got {settings.max_length}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        again = "if it was written by another version of the program, the command that trained it writes it again"
        raise DataError(f"{directory} has no extractor: {FILE}: {str(error)[:300]}; {again}") from error
    return settings


def of_type(declared: type, found: Any, where: str) -> dict[str, Any]:
    """The fields of a class from an object of JSON, each as it is declared; those with a default may be missing."""
    hints = get_type_hints(declared)
    if not isinstance(found, dict) or set(found) - set(hints):
        raise ValueError(f"{where} must be an object of {', '.join(sorted(hints))}; got {str(found)[:200]}")
    return {name: value_of(hints[name], value, name) for name, value in found.items()}


def value_of(hint: Any, value: Any, name: str) -> Any:
    """A value of JSON as the type that a field declares."""
    kinds = get_args(hint)
    if hint is pointer.Options:
        return pointer.Options(**of_type(hint, value, name))
    if bert.Config in kinds:
        return None if value is None else bert.Config(**of_type(bert.Config, value, name))
    if get_origin(hint) is Literal:
        right = isinstance(value, str) and value in kinds
    elif get_origin(hint) is tuple:
        if not isinstance(value, list) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            raise ValueError(f"{name} must be a list of {len(kinds)} values; got {str(value)[:200]}")
        return tuple(value_of(kinds[0], each, name) for each in value)
    elif hint is float:
        right = type(value) in (int, float) and math.isfinite(value)
    else:
        right = type(value) is hint or (NoneType in kinds and value is None)
    if not right:
        raise ValueError(f"{name} must be {getattr(hint, '__name__', None) or hint}; got {str(value)[:200]}")
    return value
