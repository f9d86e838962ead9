"""Check that the settings and arrays of a student match, before compiled code runs.

Compiled code does not check bounds and would read past the end of a short array. An error names the
setting or array, its actual and its expected value. Imports only NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.serving.feature_spec import VOCABULARY_BITS, NgramSpec
from raydistill.serving.lexicon import IDF, NGRAMS, VECTORS, WORDS
from raydistill.serving.units.names import Names, checked_units

Arrays = Mapping[str, NDArray[Any]]
_AGAIN = "export the bundle again, or copy all of its files"
EXTRA_UNITS = "extra_units"
_MAX_HASH_BITS = 30  # ids are int32
_MOST_CHARS = 2**31 - 1
_LEAST_DEVIATION = 1e-30  # division by less overflows float32
_CHAR_NGRAMS = (0, 2, 3, 4, 5, 6)
_LAYER = re.compile(r"(weight|bias)_([0-9]+)")


def check_settings(settings: Mapping[str, Any]) -> NgramSpec:
    """Check all settings of a bundle that a scorer reads, and return the NgramSpec in them.

    Raises:
        UserError: a setting is missing, has the wrong type or is out of range.
    """
    _number(
        settings,
        "temperature",
        is_right=lambda value: 0 < value < 1e30,
        wanted="above 0 and finite",
    )
    _number(settings, "threshold", is_right=lambda value: 0 <= value <= 1, wanted="from 0 to 1")
    for name in ("max_query_chars", "max_title_chars"):
        value = _present(settings, name)
        if type(value) is not int or not 1 <= value <= _MOST_CHARS:
            raise _wrong(name, value, f"a whole number from 1 to {_MOST_CHARS:,}")
    if type(settings.get("single_texts", False)) is not bool:
        raise _wrong("single_texts", settings["single_texts"], "true or false")
    columns = settings.get("title", ["title"])
    if not (isinstance(columns, list) and columns and all(isinstance(c, str) for c in columns)):
        raise _wrong("title", columns, "a list of names of columns")
    return _spec(_present(settings, "ngrams"))


def check_arrays(arrays: Arrays, spec: NgramSpec) -> int:
    """Check all arrays against `spec`, and return the number of layers.

    Raises:
        UserError: an array is missing, is not finite, or has the wrong type or shape.
    """
    table = _array(arrays, "embedding", np.float32, (spec.num_rows, None))
    _check_dense(arrays, spec)
    _check_lexicon(arrays, spec)
    return _check_layers(arrays, num_inputs=spec.num_bags * table.shape[1] + spec.num_dense)


def _check_dense(arrays: Arrays, spec: NgramSpec) -> None:
    _array(arrays, "dense_mean", np.float32, (spec.num_dense,))
    deviations = _array(arrays, "dense_std", np.float32, (spec.num_dense,))
    if not (deviations > _LEAST_DEVIATION).all():
        raise _bad("dense_std", f"{deviations.min()} in it", "above 0 everywhere")


def _check_layers(arrays: Arrays, *, num_inputs: int) -> int:
    """Check that layer sizes match and that the last layer has one output; the number of layers."""
    numbers = [int(match[2]) for name in arrays if (match := _LAYER.fullmatch(name))]
    num_layers = 1 + max(numbers, default=0)
    for at in range(num_layers):
        num_outputs = 1 if at == num_layers - 1 else None
        weight = _array(arrays, f"weight_{at}", np.float32, (num_outputs, num_inputs))
        _array(arrays, f"bias_{at}", np.float32, (len(weight),))
        num_inputs = len(weight)
    return num_layers


def _check_lexicon(arrays: Arrays, spec: NgramSpec) -> None:
    rarity = _array(arrays, IDF, np.float32, (None,))
    if len(rarity) & (len(rarity) - 1):  # the row is the highest bits of a hash
        raise _bad(IDF, f"of {len(rarity):,} numbers", "a power of two of them")
    words = _array(arrays, WORDS, np.uint64, (None,), may_be_empty=True)
    num_columns = spec.word_dim if spec.has_match else None  # None: not read, any size
    kind = np.float32 if _dtype(arrays, VECTORS) == np.float32 else np.float16
    _array(arrays, VECTORS, kind, (len(words), num_columns), may_be_empty=True)
    ids = _array(arrays, NGRAMS, np.int32, (None,), may_be_empty=True)
    if len(ids) > spec.vocabulary_rows:
        wanted = f"at most {spec.vocabulary_rows:,}: the setting vocabulary_rows"
        raise _bad(NGRAMS, f"of {len(ids):,} ids", wanted)
    if (ids[1:] <= ids[:-1]).any() or (len(ids) and not 0 <= ids[0] <= ids[-1] < _num_ids()):
        raise _bad(NGRAMS, "not in order", f"rising ids from 0 to {_num_ids() - 1:,}")


def _num_ids() -> int:
    return 1 << VOCABULARY_BITS


def _dtype(arrays: Arrays, name: str) -> object:
    found = arrays.get(name)
    return None if found is None else found.dtype


def _array(
    arrays: Arrays,
    name: str,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
    *,
    may_be_empty: bool = False,
) -> NDArray[Any]:
    """Check and return the array `name`.

    None in `shape`: any size above 0 (`may_be_empty`: or 0).
    """
    wanted = (
        f"{np.dtype(dtype)} of shape ({', '.join('n' if n is None else str(n) for n in shape)})"
    )
    if name not in arrays:
        raise UserError(f"the bundle has no array {name!r}; it should be {wanted}: {_AGAIN}")
    found = arrays[name]
    least = 0 if may_be_empty else 1
    sizes_fit = found.ndim == len(shape) and all(
        size >= least if want is None else size == want
        for size, want in zip(found.shape, shape, strict=True)
    )
    if found.dtype != dtype or not sizes_fit:
        raise _bad(name, f"{found.dtype} of shape {found.shape}", wanted)
    if not _is_finite(found):
        raise _bad(name, "not finite everywhere", "numbers without inf and NaN")
    return found


def _is_finite(values: NDArray[Any]) -> bool:
    """Whether all values are finite: in one pass without a copy, so that loading stays fast."""
    if values.dtype.kind != "f" or values.size == 0:
        return True
    if values.dtype == np.float16:  # inf and NaN have the largest exponent, 31 << 10
        largest = values.view(np.int16).max(), values.view(np.uint16).max()
        return bool(largest[0] < 0x7C00 and largest[1] < 0xFC00)  # without and with sign
    if values.dtype == np.float32 and values.flags.c_contiguous:
        flat = values.reshape(-1)
        # The sum of squares is finite unless a value is not finite or is huge.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(np.dot(flat, flat)):
                return True
    return bool(np.isfinite(values).all())


def _spec(content: object) -> NgramSpec:
    kinds = get_type_hints(NgramSpec)
    names = [field.name for field in fields(NgramSpec)]
    if not isinstance(content, dict):
        raise _wrong("ngrams", content, f"a table of {', '.join(names)}")
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise UserError(f"bundle.json: ngrams has an unknown field {unknown[0]!r}; {_AGAIN}")
    for name in names:
        if name != EXTRA_UNITS:
            _check_type(f"ngrams.{name}", _present(content, name), kinds[name])
    units = _extra_units(_present(content, EXTRA_UNITS))
    spec = NgramSpec(**{**content, EXTRA_UNITS: units})
    _check_ranges(spec)
    return spec


def _extra_units(content: object) -> Names:
    """The units of the spec from (short name, other names) pairs: tuples, or lists from JSON."""
    try:
        units = {short: names for short, names in content}  # type: ignore[attr-defined]
        return checked_units(units)
    except (TypeError, ValueError) as error:
        wanted = f"pairs of a short name and other names ({error})"
        raise _wrong(f"ngrams.{EXTRA_UNITS}", content, wanted) from error


def _check_type(name: str, value: object, kind: Any) -> None:  # noqa: ANN401 - a type hint
    if getattr(kind, "__origin__", None) is Literal:
        if value not in get_args(kind):
            raise _wrong(name, value, f"one of {get_args(kind)}")
    elif type(value) is not kind:  # isinstance(True, int) is true
        raise _wrong(name, value, f"of type {kind.__name__}")


def _check_ranges(spec: NgramSpec) -> None:
    if not 1 <= spec.hash_bits <= _MAX_HASH_BITS:
        raise _wrong("ngrams.hash_bits", spec.hash_bits, f"from 1 to {_MAX_HASH_BITS}")
    if spec.char_ngrams not in _CHAR_NGRAMS:
        raise _wrong("ngrams.char_ngrams", spec.char_ngrams, f"one of {_CHAR_NGRAMS}")
    if not 0 <= spec.vocabulary_rows <= _num_ids():
        raise _wrong("ngrams.vocabulary_rows", spec.vocabulary_rows, f"from 0 to {_num_ids():,}")
    if spec.word_dim < 0:
        raise _wrong("ngrams.word_dim", spec.word_dim, "0 or more")


def _number(
    settings: Mapping[str, Any], name: str, *, is_right: Callable[[float], bool], wanted: str
) -> None:
    value = _present(settings, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_right(value):
        raise _wrong(name, value, f"a number {wanted}")


def _present(content: Mapping[str, Any], name: str) -> object:
    if name not in content:
        raise UserError(f"bundle.json has no {name}; {_AGAIN}")
    return content[name]


def _wrong(name: str, value: object, wanted: str) -> UserError:
    return UserError(f"bundle.json: {name} is {value!r}, not {wanted}; {_AGAIN}")


def _bad(name: str, found: str, wanted: str) -> UserError:
    return UserError(f"the bundle's array {name!r} is {found}, not {wanted}; {_AGAIN}")
