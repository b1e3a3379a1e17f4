"""Strict conversion between nested mappings (TOML, JSON) and frozen dataclasses. Free of torch."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from lsgm.errors import ConfigError, did_you_mean

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a mapping comes from."""

    where: str
    has_null: bool
    lenient: bool
    """Whether keys that a dataclass does not have are left out."""

    def __str__(self) -> str:
        return self.where


NONE = "none"
"""How None is written where it is not the default: TOML has no null."""

BEFORE = "before"
"""Key of a field's metadata: what was the case before there was the field, where that is not its default."""

LARGEST = 2**63 - 1
"""The largest whole number that tensors and files of numbers hold, and so the largest seed, count or step."""

LONGEST = 100
"""Characters that a complaint shows of a key or of a value."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def from_dict(
    cls: type[T],
    mapping: Mapping[str, Any],
    where: str,
    *,
    unknown: Literal["refuse", "ignore"] = "refuse",
    null: bool = False,
) -> T:
    """Return the dataclass ``cls`` that a nested mapping describes; ``where`` opens every complaint.

    Nothing is guessed: text is not turned into numbers, an unknown key is an error unless ``unknown`` is
    ``"ignore"``, as for files that a later version may have written. Whole numbers pass as floats, lists as
    tuples, and ``"none"`` as None where None is allowed, unless the mapping is of a language that has a
    ``null``. A union of dataclasses is told apart by the value of a Literal field (``kind``) or, failing
    that, by whichever fits.

    Raises ConfigError naming the key by its full path: unknown (with a "did you mean"), missing, of a wrong
    type, or refused by the dataclass itself.
    """
    return typing.cast(T, _build(cls, mapping, _Source(where, null, unknown == "ignore"), ""))


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested plain values that ``from_dict`` turns back into an equal one.

    None is dropped where it is the field's default and written as ``"none"`` elsewhere; tuples become lists,
    enumerations their values, paths text.
    """
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None and field.default is None:
            continue
        out[field.name] = _plain(value)
    return out


def as_then(cls: type[Any], mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return saved settings with the keys that did not exist when they were saved, as things were then.

    Only fields that say what was the case `BEFORE` them are filled in; others keep to their defaults.
    """
    out = {str(key): value for key, value in mapping.items()}
    hints = _hints(cls)
    for field in dataclasses.fields(cls):
        hint, given = hints[field.name], out.get(field.name)
        known = given is None or isinstance(given, Mapping)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and known:
            if inner := as_then(hint, given or {}):
                out[field.name] = inner
        elif given is None and BEFORE in field.metadata:
            out[field.name] = field.metadata[BEFORE]
    return out


def completed_as_then(config: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return today's settings as tables, with what was the case when ``saved`` was for the keys it lacks."""
    return _overlaid(to_dict(config), as_then(type(config), saved), saved)


def _overlaid(now: dict[str, Any], then: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(now)
    for name, value in then.items():
        if isinstance(value, Mapping):
            if isinstance(table := now.get(name), dict):  # saved settings may be of another kind
                out[name] = _overlaid(table, value, saved.get(name) or {})
        elif name not in saved:
            out[name] = value
    return out


def flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return ``{"a.b.c": value}``; a dash in a key, which is another spelling of it, as an underscore."""
    out: dict[str, Any] = {}
    for key, value in tables.items():
        name = prefix + str(key).replace("-", "_")
        out |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return out


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (before, now) wherever nested tables differ; None stands for an absent key."""
    was, is_ = flat(before), flat(now)
    both = {key: (was.get(key), is_.get(key)) for key in dict.fromkeys([*was, *is_])}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def worded(value: Any) -> str:
    """Return a setting for a sentence."""
    return "nothing" if value is None else repr(value)


def refuse_huge(config: Any, path: str = "") -> None:
    """Raise ConfigError for a whole number in a dataclass, or in one inside it, that 64 bits do not hold."""
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), _join(path, field.name.replace("_", "-"))
        if key == "config":  # a recipe's values are options of no table
            key = ""
        if dataclasses.is_dataclass(value):
            refuse_huge(value, key)
        elif isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(f"{key} is {value}; give a whole number of at most 2^63 - 1 = {LARGEST}")


_evaluated = functools.cache(typing.get_type_hints)


def _hints(cls: Any) -> Mapping[str, Any]:
    """Return a dataclass's annotations, evaluated once: a header of weights has a record for every tensor."""
    return _evaluated(cls)


def _plain(value: Any) -> Any:
    if value is None:
        return NONE
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _join(path: str, key: str) -> str:
    key = key if len(key) <= LONGEST else f"{key[:LONGEST]}..."
    if not key.isprintable():  # a line end would make two of the sentence
        key = key.encode("unicode_escape").decode("ascii")
    return f"{path}.{key}" if path else key


def _build(cls: type[Any], mapping: Any, where: _Source, path: str) -> Any:
    """Build one dataclass from its table."""
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: '{path}' is {_shown(mapping)}; it must be a table")
    hints = _hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    # Options are spelt with dashes on the command line; both spellings name the same key here.
    given = {str(key).replace("-", "_"): value for key, value in mapping.items()}
    unknown = [key for key in given if key not in fields]
    if unknown and not where.lenient:
        key = unknown[0]
        hint = did_you_mean(key, fields) or f"; the keys here are {', '.join(sorted(fields)) or 'none'}"
        raise ConfigError(f"{where}: unknown key '{_join(path, key)}'{hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise ConfigError(f"{where}: the key '{_join(path, name)}' is missing; add it")
    values = {
        key: _value(hints[key], item, where, _join(path, key)) for key, item in given.items() if key in fields
    }
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {f'in [{path}] ' if path else ''}{error}") from None


def _value(hint: Any, value: Any, where: _Source, path: str) -> Any:
    """Convert one value to what its annotation says."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(args, value, where, path)
    if origin is Literal:
        if not any(value == item and type(value) is type(item) for item in args):
            raise _choice(value, list(args), where, path)
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where, path)
    if origin in (tuple, list) or hint in (tuple, list):
        return _sequence(origin or hint, args, value, where, path)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: '{path}' is {_shown(value)}; it must be a table")
        item = args[1] if args else Any
        return {str(key): _value(item, entry, where, _join(path, str(key))) for key, entry in value.items()}
    return _scalar(hint, value, where, path)


def _scalar(hint: Any, value: Any, where: _Source, path: str) -> Any:
    """Convert a number, a text, a truth value, a path or the member of an enumeration."""
    if hint is Any:
        return value
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in [member.value for member in hint]:
            raise _choice(value, [member.value for member in hint], where, path)
        return hint(value)
    if hint is Path and isinstance(value, str):
        if not value.strip():  # it would be the working directory
            raise ConfigError(f"{where}: '{path}' is empty; give a path")
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is int and abs(value) > LARGEST:
        raise ConfigError(
            f"{where}: '{path}' is {value}; give a whole number of at most 2^63 - 1 = {LARGEST}"
        )
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    expected = _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
    raise ConfigError(f"{where}: '{path}' is {_shown(value)}; it must be {expected}")


def _sequence(kind: type[Any], args: tuple[Any, ...], value: Any, where: _Source, path: str) -> Any:
    """Convert a list to a tuple or list, each entry by its own annotation."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{where}: '{path}' is {_shown(value)}; it must be a list")
    if kind is list or not args or args[-1] is Ellipsis:
        hints: list[Any] = [args[0] if args else Any] * len(value)
    else:
        hints = list(args)
        if len(hints) != len(value):
            raise ConfigError(f"{where}: '{path}' has {len(value)} entries; it must have {len(hints)}")
    return kind(
        _value(hint, item, where, f"{path}[{i}]")
        for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _union(args: tuple[Any, ...], value: Any, where: _Source, path: str) -> Any:
    """Convert to the first alternative that fits; complain in the words of the likeliest."""
    if type(None) in args and (value is None or (value == NONE and not where.has_null)):
        return None
    alternatives = [arg for arg in args if arg is not type(None)]
    if sum(map(dataclasses.is_dataclass, alternatives)) > 1:
        where = dataclasses.replace(where, lenient=False)  # they are told apart by keys, which all count
    if isinstance(value, Mapping):
        alternatives = [arg for arg in alternatives if _named_by(arg, value)] or alternatives
    # A whole number must stay one in `int | float`, so exact types go first.
    alternatives.sort(key=lambda arg: type(value) is not arg)
    complaints: list[ConfigError] = []
    for arg in alternatives:
        try:
            return _value(arg, value, where, path)
        except ConfigError as error:
            complaints.append(error)
    if len(complaints) == 1 or isinstance(value, Mapping):
        raise complaints[0]
    options = " or ".join(_WORDS.get(arg, getattr(arg, "__name__", str(arg))) for arg in alternatives)
    raise ConfigError(f"{where}: '{path}' is {_shown(value)}; it must be {options}")


def _named_by(candidate: Any, mapping: Mapping[str, Any]) -> bool:
    """Say whether a Literal field of a dataclass carries the very value that the mapping gives it."""
    if not (dataclasses.is_dataclass(candidate) and isinstance(candidate, type)):
        return False
    hints = _hints(candidate)
    tags = [key for key, hint in hints.items() if get_origin(hint) is Literal and key in mapping]
    return bool(tags) and all(mapping[key] in get_args(hints[key]) for key in tags)


def _choice(value: Any, allowed: list[Any], where: _Source, path: str) -> ConfigError:
    listed = ", ".join(repr(item) for item in allowed)
    hint = did_you_mean(value, [str(item) for item in allowed]) if isinstance(value, str) else ""
    return ConfigError(f"{where}: '{path}' is {_shown(value)}; it must be one of {listed}{hint}")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        return f"a {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
