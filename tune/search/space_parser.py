"""A search space's YAML to dimensions; whatever is wrong is kept with its line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from nfbmr import yaml_text
from nfbmr.fields import did_you_mean, keys, sections
from nfbmr.methods.registry import know_methods
from tune.search.dimension import Dimension, Kind, Label, Settings

SPACES = Path(__file__).parent / "spaces"
"""Named spaces, one YAML file each."""

KINDS: tuple[Kind, ...] = ("int", "float", "choice", "preset")
"""Words by which a space says what a dimension ranges over."""
_DETAILS = {"int": ("log", "step"), "float": ("log", "step"), "choice": (), "preset": ()}


class Mistake(Exception):
    """Something wrong with one dimension.

    Args:
        what: In the user's terms.
        at: Dotted place in the file.
    """

    def __init__(self, what: str, at: str) -> None:
        super().__init__(what)
        self.what, self.at = what, at


class ParsedSpace(NamedTuple):
    """What the text of a space says.

    Attributes:
        dimensions: Those that could be read, in the order of the text.
        text: The text itself; empty where none could be read.
        problems: Line numbers (0: the whole text) and what is wrong there.
    """

    dimensions: tuple[Dimension, ...] = ()
    text: str = ""
    problems: tuple[tuple[int, str], ...] = ()


def parse_file(name_or_path: str | Path) -> ParsedSpace:
    """Parse a named space or a file."""
    named = {path.stem: path for path in sorted(SPACES.glob("*.yaml"))}
    path = named.get(str(name_or_path), Path(name_or_path))
    try:
        return parse_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = did_you_mean(str(name_or_path), named)
        words = f"neither a named space ({', '.join(named)}) nor a file that can be read"
        problem = f"{words} ({error.strerror or error}){hint}"
    except UnicodeDecodeError:
        problem = "not a text file"
    return ParsedSpace(problems=((0, problem),))


def parse_text(text: str) -> ParsedSpace:
    """Parse a space's YAML."""
    try:
        document = yaml_text.parse(text)
    except yaml_text.YamlError as error:
        return ParsedSpace((), text, ((0, f"not YAML ({error})"),))
    if not isinstance(document.value, Mapping) or not document.value:
        return ParsedSpace(
            (), text, ((0, "holds no keys; it should read like `flow.blocks: {int: [2, 8]}`"),)
        )
    know_methods(document.value)
    lines = document.lines
    dimensions: dict[str, Dimension] = {}
    problems: list[tuple[int, str]] = []
    for name, spec in _entries(document.value, ""):
        line = lines.get(name, 0)
        try:
            if name in dimensions:
                raise Mistake(f"{name}: searched twice", name)
            dimensions[name] = _dimension(name, spec, line, dimensions)
        except Mistake as mistake:
            problems.append((lines.get(mistake.at, line), mistake.what))
    return ParsedSpace(tuple(dimensions.values()), text, tuple(problems))


def _entries(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dimensions by dotted name, sections opened."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in sections() and isinstance(value, Mapping) and not set(value) & set(KINDS):
            yield from _entries(value, f"{name}.")
        else:
            yield name, value


def _dimension(name: str, spec: Any, line: int, above: Mapping[str, Dimension]) -> Dimension:
    if name not in keys() and not (isinstance(spec, Mapping) and "preset" in spec):
        if name in sections():
            raise Mistake(f"{name}: a section, not a key; name one of its keys", name)
        # A word that is nearly a key's full name was meant as the key.
        close = did_you_mean(name, keys()) or next(
            (f"; did you mean {match}?" for match in get_close_matches(name, keys(), n=1)), ""
        )
        raise Mistake(f"{name}: no such key{close}", name)
    if not isinstance(spec, Mapping):
        shown = yaml_text.inline(spec)[:60]
        if isinstance(spec, list):
            raise Mistake(f"{name}: {shown} is a value; write {{choice: {shown}}}", name)
        raise Mistake(
            f"{name}: {shown} is a value, not a range; fix it with --set {name}={shown}, or give a choice",
            name,
        )
    given = [kind for kind in KINDS if kind in spec]
    if len(given) != 1:
        unknown = [str(word) for word in spec if word not in (*KINDS, "log", "step", "when")]
        hint = did_you_mean(unknown[0], KINDS) if unknown else ""
        kinds = " and ".join(given) if given else f"none{hint}"
        raise Mistake(f"{name}: needs one of int, float, choice, preset; has {kinds}", name)
    kind = given[0]
    allowed = (kind, *_DETAILS[kind], "when")
    for word in spec:
        if word not in allowed:
            hint = did_you_mean(str(word), allowed)
            raise Mistake(f"{name}: {word} says nothing for {kind}{hint}", f"{name}.{word}")
    if (kind == "preset") == (name in keys()):
        raise Mistake(
            f"{name}: a preset needs a name of its own, not a key's; for one key use choice"
            if kind == "preset"
            else f"{name}: no such key{did_you_mean(name, keys())}",
            name,
        )
    when = _when(name, spec.get("when"), above)
    if kind in ("choice", "preset"):
        read = _choice if kind == "choice" else _preset
        return Dimension(name, kind, options=read(name, spec[kind]), when=when, line=line)
    return _range(name, kind, spec, when, line)


def _range(
    name: str, kind: Kind, spec: Mapping[str, Any], when: Mapping[str, tuple[Label, ...]], line: int
) -> Dimension:
    ends = spec[kind]
    at = f"{name}.{kind}"
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(_is_number, ends)):
        raise Mistake(
            f"{name}: {kind} needs two numbers, [lowest, highest]; has {yaml_text.inline(ends)}", at
        )
    low, high = ends
    step, log = spec.get("step"), spec.get("log", False)
    if kind == "int" and not all(isinstance(end, int) for end in ends):
        raise Mistake(f"{name}: int needs whole numbers; has {yaml_text.inline(ends)}", at)
    if low > high:
        raise Mistake(f"{name}: the range is empty, {low:g} is above {high:g}", at)
    if not isinstance(log, bool):
        raise Mistake(f"{name}: log is true or false; has {yaml_text.inline(log)}", f"{name}.log")
    if log and low <= 0:
        raise Mistake(f"{name}: a logarithmic range begins above 0; has {low:g}", at)
    if step is not None:
        if log:
            raise Mistake(
                f"{name}: log and step cannot both be; use choice for a list of values", f"{name}.step"
            )
        if not _is_number(step) or step <= 0 or (kind == "int" and not isinstance(step, int)):
            what = "a whole number" if kind == "int" else "a number"
            raise Mistake(f"{name}: step is {what} above 0; has {yaml_text.inline(step)}", f"{name}.step")
        if low < high and step > high - low:
            raise Mistake(f"{name}: a step of {step:g} leaves {low:g} alone in the range", f"{name}.step")
        high = low + int((high - low) / step + 1e-9) * step
    return Dimension(name, kind, low, high, log, step, when=when, line=line)


def _choice(name: str, values: Any) -> dict[Label, Settings]:
    if not isinstance(values, list) or not values:
        raise Mistake(
            f"{name}: choice needs a list of values; has {yaml_text.inline(values)}", f"{name}.choice"
        )
    options: dict[Label, Settings] = {}
    for value in values:
        label = label_of(value)
        if any(label == other and type(label) is type(other) for other in options):
            raise Mistake(f"{name}: {yaml_text.inline(value)} is listed twice", f"{name}.choice")
        options[label] = {name: value}
    if len(options) != len(values):  # 1, 1.0 and true are one key to Python, and one value to most settings
        raise Mistake(f"{name}: two of the values are the same", f"{name}.choice")
    return options


def _preset(name: str, presets: Any) -> dict[Label, Settings]:
    at = f"{name}.preset"
    if not isinstance(presets, Mapping) or not presets:
        raise Mistake(
            f"{name}: preset needs names, each with its settings; has {yaml_text.inline(presets)}", at
        )
    options: dict[Label, Settings] = {}
    for label, values in presets.items():
        if values is not None and not isinstance(values, Mapping):
            raise Mistake(
                f"{name}: {label} needs settings such as {{flow.blocks: 4}}; has {yaml_text.inline(values)}",
                f"{at}.{label}",
            )
        settings = dict(_flat(values or {}, ""))
        for key in settings:
            if key not in keys():
                raise Mistake(
                    f"{name}: {label}: {key}: no such key{did_you_mean(key, keys())}", f"{at}.{label}.{key}"
                )
        options[str(label)] = settings
    return options


def _flat(values: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in sections() and isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _when(name: str, spec: Any, above: Mapping[str, Dimension]) -> dict[str, tuple[Label, ...]]:
    if spec is None:
        return {}
    at = f"{name}.when"
    if not isinstance(spec, Mapping):
        raise Mistake(f"{name}: when needs dimensions and their values, such as {{method: nf-bmr}}", at)
    conditions: dict[str, tuple[Label, ...]] = {}
    for other, wanted in spec.items():
        if other not in above:
            hint = did_you_mean(str(other), above) or "; it has to be searched, and stand above this one"
            raise Mistake(f"{name}: when {other}: is not searched above{hint}", f"{at}.{other}")
        dimension = above[other]
        # A list is a list of values, unless it is itself one of the values.
        whole = label_of(wanted) in dimension.options if dimension.options else not isinstance(wanted, list)
        labels = tuple(label_of(value) for value in ([wanted] if whole else wanted))
        for label in labels:
            known = label in dimension.options or (
                not dimension.options and dimension.label_of({dimension.name: label}) is not None
            )
            if not known:
                hint = did_you_mean(str(label), [str(option) for option in dimension.options])
                raise Mistake(f"{name}: when {other} is {label}: it never is{hint}", f"{at}.{other}")
        conditions[other] = labels
    return conditions


def label_of(value: Any) -> Label:
    """What Optuna is told of a value: scalars as they are, anything else as YAML.

    Example:
        >>> label_of(["blocks.4", "blocks.5"])
        '[blocks.4, blocks.5]'
    """
    return value if value is None or isinstance(value, str | int | float) else yaml_text.inline(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
