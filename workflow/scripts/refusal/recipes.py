"""Recipes: what an intervention is made of, as the configuration says it.

A recipe names a direction, an operator and where it acts; `refusal.interventions` turns it into
tensors. Kept apart from it, so that the configuration can be checked without loading torch.
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from refusal.errors import InputError

Scope = Literal["source", "writes", "all", "weights"]
Tokens = Literal["all", "prompt", "last", "generated"]

SCOPES = ("source", "writes", "all", "weights")
# Which tokens are steered: all, those of the prompt, its last one, or those that are generated.
TOKENS = ("all", "prompt", "last", "generated")
# Under which scope the candidates were scored that a direction was chosen from.
SELECTIONS = ("source", "all")
ORIGINS = ("zero", "harmless", "midpoint", "harmful")
# What an addition of strength 1 is as long as: the mean difference, or the mean harmful projection.
LENGTHS = ("difference", "harmful")
SIDES = {"harmless": -1, "harmful": 1}
DIRECTIONS = ("dim", "inlp_faithful", "inlp_corrected", "leace", "random")
ABOVE_RANK = ("error", "full")
# Directions that have no selection of their own take the candidate of difference in means.
SELECTED_LIKE = {"leace": "dim", "random": "dim"}

# Operators that no hook applies: nothing is done, or the model itself is trained.
UNSTEERED = ("none", "fine_tune")
# Which keys an operator takes besides `operator`, `family` and `above_rank`.
_OPERATOR_KEYS = {
    "none": (),
    "fine_tune": (),
    "project": ("direction", "k", "alpha", "origin", "scope", "selection", "tokens", "draw"),
    "add": ("direction", "k", "strength", "length", "scope", "selection", "tokens", "draw"),
    "alterrep": ("direction", "k", "alpha", "side", "scope", "selection", "tokens", "draw"),
    "erase": ("direction", "scope", "selection", "tokens"),
}
# Keys that may hold a list, in the order in which they are appended to the name.
_LIST_KEYS = ("k", "alpha", "strength", "origin", "side", "scope", "tokens", "draw")
_KEYS = ("operator", "direction", "length", "selection", "family", "above_rank", *_LIST_KEYS)
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


def expand_interventions(
    config: Mapping[str, Mapping[str, Any]], draws: int | None = None
) -> dict[str, dict[str, Any]]:
    """Recipes of all interventions: list values expand to their product, each with its own name.

    Args:
        config: the section `interventions`: name -> keys `operator`, `direction`, `k`, `alpha`,
            `strength`, `length`, `origin`, `side`, `scope`, `tokens`, `draw`, and optionally
            `selection` (the scope
            under which the candidate was chosen; default: "source" for scope source, else "all"),
            `family` (default: the direction, "baseline" for operator none) and `above_rank` (what
            to do if k exceeds the number of directions found: "error", the default, or "full":
            take them all).
        draws: number of random draws there are, to check `draw`; None leaves it unchecked.

    Returns:
        Name -> recipe with every key filled in; what does not apply is None. Keys given as lists
        add a suffix in the order k, alpha, strength, origin, side, scope, tokens, draw.

    Raises:
        InputError: an unknown or missing key or value, keys that do not go together, or a name
            that comes up twice; one line with the key and the remedy.
    """
    recipes: dict[str, dict[str, Any]] = {}
    for entry, given in config.items():
        key = f"interventions.{entry}"
        if not isinstance(given, Mapping):
            raise InputError(f"{key}: must hold keys such as operator. Remedy: see config.yaml.")
        settings = {name: value for name, value in given.items() if value is not None}
        _check_keys(key, entry, settings)
        for suffix, values in _product(key, settings):
            name = entry + suffix
            if name in recipes:
                raise InputError(
                    f"{key}: the name '{name}' comes up twice. "
                    "Remedy: rename the entry or remove the repeated value."
                )
            recipes[name] = _recipe(key, name, values, draws)
    return recipes


def options(values: Sequence[str]) -> str:
    """'a, b or c'."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def _check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise InputError(
            f"{key}: unknown value '{value}'. Remedy: {hint}use {options(tuple(allowed))}."
        )


def _check_keys(key: str, entry: str, settings: Mapping[str, Any]) -> None:
    """Raises InputError unless the keys of one entry are known and go together."""
    if not _NAME.fullmatch(str(entry)):
        raise InputError(f"{key}: not a file name. Remedy: use letters, digits, '_' and '-'.")
    for name in settings:
        if name not in _KEYS:
            near = difflib.get_close_matches(str(name), _KEYS, n=2) or _KEYS
            raise InputError(f"{key}.{name}: unknown key. Remedy: use {options(tuple(near))}.")
        if name not in _LIST_KEYS and not isinstance(settings[name], str):
            raise InputError(f"{key}.{name}: must be one word. Remedy: make one entry per value.")
    if "operator" not in settings:
        raise InputError(f"{key}.operator: missing. Remedy: use {options(tuple(_OPERATOR_KEYS))}.")
    operator = settings["operator"]
    _check_choice(f"{key}.operator", operator, tuple(_OPERATOR_KEYS))
    allowed = (*_OPERATOR_KEYS[operator], "operator", "family", "above_rank")
    for name in settings:
        if name not in allowed:
            takers = tuple(one for one, keys in _OPERATOR_KEYS.items() if name in keys)
            raise InputError(
                f"{key}.{name}: does not apply to operator {operator}, only to "
                f"{options(takers)}. Remedy: remove it."
            )
    for name in ("direction", "side"):
        if name in _OPERATOR_KEYS[operator] and name not in settings:
            values = DIRECTIONS if name == "direction" else tuple(SIDES)
            raise InputError(
                f"{key}.{name}: operator {operator} needs one. Remedy: use {options(values)}."
            )


def _product(key: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All combinations of the list values of one entry, with the suffix of each."""
    lists = {name: settings[name] for name in _LIST_KEYS if isinstance(settings.get(name), list)}
    for name, values in lists.items():
        if not values:
            raise InputError(f"{key}.{name}: an empty list. Remedy: give a value or remove it.")
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        suffix = "".join(f"-{_label(name, value)}" for name, value in chosen.items())
        yield suffix, {**settings, **chosen}


def _label(name: str, value: Any) -> str:
    """A value in a name: words alone, numbers and k after their key."""
    if isinstance(value, str) and name != "k":
        return value
    number = isinstance(value, int | float)
    return f"{name}{value:g}" if number else f"{name}{value}"


def _recipe(key: str, name: str, given: Mapping[str, Any], draws: int | None) -> dict[str, Any]:
    """The complete recipe of one intervention, every value checked."""
    operator, direction = given["operator"], given.get("direction")
    defaults: dict[str, Any] = {"scope": "source"}
    if "tokens" in _OPERATOR_KEYS[operator]:
        defaults["tokens"] = "all"
    if operator in ("project", "alterrep"):
        defaults |= {"k": "full" if str(direction).startswith("inlp") else 1, "alpha": 1.0}
    if operator == "project":
        defaults["origin"] = "zero"
    if operator == "add":
        defaults |= {"k": 1, "strength": 1.0, "length": "difference"}
    if operator == "erase":
        defaults |= {"k": "full", "alpha": 1.0}
    if direction == "random":
        defaults["draw"] = 0
    family = {"none": "baseline", "fine_tune": "fine_tuning"}.get(operator, direction)
    values = {"above_rank": "error", "family": family, **defaults, **given}
    recipe = {
        "name": name,
        **{part: values.get(part) for part in ("family", "direction", "operator", "scope")},
        "selection": _selection(values),
        **{part: values.get(part) for part in ("k", "alpha", "strength", "length", "origin")},
        **{part: values.get(part) for part in ("side", "tokens", "draw", "above_rank")},
    }
    _check_values(key, recipe, draws)
    for part in ("alpha", "strength"):
        recipe[part] = None if recipe[part] is None else float(recipe[part])
    return recipe


def _selection(values: Mapping[str, Any]) -> str | None:
    """By default a direction is chosen under the scope in which it is then applied."""
    if values["operator"] in UNSTEERED:
        return None
    return values.get("selection", "source" if values["scope"] == "source" else "all")


def _check_values(key: str, recipe: Mapping[str, Any], draws: int | None) -> None:
    """Raises InputError unless every value is of its kind and the values go together."""
    choices = {"scope": SCOPES, "origin": ORIGINS, "side": tuple(SIDES), "direction": DIRECTIONS}
    choices |= {"selection": SELECTIONS, "length": LENGTHS, "tokens": TOKENS}
    for part, allowed in {**choices, "above_rank": ABOVE_RANK}.items():
        if recipe[part] is not None:
            _check_choice(f"{key}.{part}", recipe[part], allowed)
    for part in ("alpha", "strength"):
        value = recipe[part]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value)):
            raise InputError(f"{key}.{part}: '{value}' is no number. Remedy: give a finite one.")
    k, draw, direction = recipe["k"], recipe["draw"], recipe["direction"]
    if k is not None and k != "full" and not (_is_integer(k) and k >= 1):
        raise InputError(f"{key}.k: '{k}'. Remedy: give an integer of at least 1, or full.")
    if draw is not None and not (_is_integer(draw) and 0 <= draw < (draws or math.inf)):
        limit = "" if draws is None else f" below {draws} (directions.random.draws)"
        raise InputError(f"{key}.draw: '{draw}'. Remedy: give an integer from 0{limit}.")
    if draw is not None and direction != "random":
        raise InputError(
            f"{key}.draw: direction {direction} is not random. Remedy: remove it, or use random."
        )
    _check_combination(key, recipe)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_combination(key: str, recipe: Mapping[str, Any]) -> None:
    """Raises InputError if values that are fine by themselves contradict each other."""
    operator, scope, k = recipe["operator"], recipe["scope"], recipe["k"]
    if operator == "add" and k != 1:
        raise InputError(f"{key}.k: operator add adds one direction. Remedy: use k: 1.")
    if recipe["direction"] == "dim" and k not in (1, "full"):
        raise InputError(f"{key}.k: direction dim has rank 1. Remedy: use k: 1 or remove it.")
    if (operator == "erase") != (recipe["direction"] == "leace"):
        raise InputError(
            f"{key}.direction: operator erase and direction leace need each other. "
            "Remedy: use both or neither."
        )
    if operator == "alterrep" and recipe["alpha"] < 0:
        raise InputError(f"{key}.alpha: must not be negative. Remedy: use the other side instead.")
    if scope == "weights" and (operator, recipe["tokens"]) not in (
        ("project", "all"),
        ("none", None),
    ):
        raise InputError(
            f"{key}.scope: edited weights act on all tokens and can only project. "
            "Remedy: use operator project without tokens, or another scope."
        )
    affine = recipe["origin"] not in (None, "zero")
    if scope != "source" and (affine or operator in ("add", "erase")):
        what = f"origin {recipe['origin']}" if affine else f"operator {operator}"
        raise InputError(
            f"{key}.scope: {what} is defined by one layer's activations. Remedy: use scope source."
        )
    if scope == "all" and operator not in UNSTEERED and recipe["alpha"] != 1:
        raise InputError(not_in_scope_all(key))


def not_in_scope_all(name: str) -> str:
    return (
        f"{name}.scope: 'all' acts on the same activation again and again, which is defined for "
        "alpha 1 only (two reflections undo each other). Remedy: use scope 'source' or 'writes'."
    )


def check_comparisons(pairs: Sequence[Sequence[str]], recipes: Mapping[str, Any]) -> None:
    """Raises InputError if a compared intervention is not in the study.

    Args:
        pairs: the key `statistics.comparisons`; `<name>-draw*` stands for all draws of a control.
        recipes: what `expand_interventions` gave.
    """
    groups = {re.sub(r"-draw\d+$", "-draw*", name) for name in recipes}
    names = itertools.chain.from_iterable(pairs)
    check_names("statistics.comparisons", names, sorted({*recipes, *groups}))


def check_names(key: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Raises InputError if an intervention that a key of the config names is not in the study."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "use a name from interventions."
            raise InputError(f"{key}: no intervention '{name}'. Remedy: {hint}")


def check_attacks(names: Sequence[str], recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError if an intervention of `attacks.interventions` cannot be switched on.

    Args:
        names: the key `attacks.interventions`.
        recipes: what `expand_interventions` gave.
    """
    check_names("attacks.interventions", names, list(recipes))
    for name in names:
        if recipes[name]["operator"] in UNSTEERED:
            raise InputError(
                f"attacks.interventions: '{name}' steers nothing. Remedy: remove it from the list."
            )


def check_capability(names: Sequence[str], recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError if an intervention cannot be in force while the harness asks its questions.

    Args:
        names: the key `capability.interventions`.
        recipes: what `expand_interventions` gave.
    """
    key = "capability.interventions"
    check_names(key, names, list(recipes))
    for name in names:
        if recipes[name]["operator"] == "fine_tune":
            raise InputError(f"{key}: '{name}' is a training, not steering. Remedy: remove it.")
        if recipes[name]["tokens"] not in (None, "all"):
            raise InputError(
                f"{key}: '{name}' steers some tokens only, but a likelihood knows no generated "
                "ones. Remedy: remove it, or give it tokens: all."
            )


def check_kinds(names: Sequence[str], recipes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError if an intervention of `kinds.interventions` is no steering of the study.

    Args:
        names: the key `kinds.interventions`.
        recipes: what `expand_interventions` gave.
    """
    check_names("kinds.interventions", names, list(recipes))
    for name in names:
        if recipes[name]["operator"] == "fine_tune":
            raise InputError(
                f"kinds.interventions: '{name}' is a training, not steering. Remedy: remove it."
            )
