"""Feature caches as parameters of a trial.

Only caches whose cost follows from the number of a stage's calls can be bought with a budget before the noise
levels are known. What a first-block cache leaves out depends on the image, and a magnitude cache needs ratios that
are measured on the model, so neither is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast, TaylorSeerCache
from tuner.flops import tflops_of_calls

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from search_spaces._choices import Choices
    from tuner.models import Blueprint, Size

_NONE = "none"
_LITE = "taylorseer-lite"
_RANGES = {"interval": (2, 6), "warmup": (1, 4), "order": (0, 2)}
_OPTIONS = {"taylorseer": tuple(_RANGES), _LITE: tuple(_RANGES), "pab": ("interval",)}
_ALL_LEVELS = (0.0, 1.0)  # of all calls only a first one can be at level 1, and it has nothing to repeat


def kinds_for(blueprint: Blueprint, size: Size, choices: Choices) -> tuple[str, ...]:
    """Lists the feature caches that model and runtime support, by counting their cost at this size."""
    found = []
    for kind, names in _OPTIONS.items():
        cache = _made(kind, {name: _RANGES[name][0] for name in names})
        try:
            tflops_of_calls(blueprint, size, [1.0], cache)
        except UserError:
            continue
        if choices.cache(cache):
            found.append(kind)
    return tuple(found)


def suggest_cache(trial: BaseTrial, kinds: Sequence[str]) -> FeatureCache | None:
    """Asks for a cache of one of these kinds, or none; where there are no kinds, nothing is asked for."""
    kind = trial.suggest_categorical("cache", (_NONE, *kinds)) if kinds else _NONE
    if kind == _NONE:
        return None
    return _made(kind, {name: trial.suggest_int(f"cache.{name}", *_RANGES[name]) for name in _OPTIONS[kind]})


def params_of_cache(cache: FeatureCache | None, kinds: Sequence[str]) -> dict[str, Any]:
    """Inverts ``suggest_cache``.

    Raises:
        ValueError: If no parameters give this cache.
    """
    if cache is None:
        return {"cache": _NONE} if kinds else {}
    for kind in kinds:
        fields = {"interval": "spatial"} if kind == "pab" else {}
        options = {name: getattr(cache, fields.get(name, name), None) for name in _OPTIONS[kind]}
        if all(value in range(_RANGES[name][0], _RANGES[name][1] + 1) for name, value in options.items()) and (
            _made(kind, options) == cache
        ):
            return {"cache": kind} | {f"cache.{name}": value for name, value in options.items()}
    raise ValueError(f"its cache ({cache!r}) is none that this space proposes for this model and budget.")


def _made(kind: str, options: Mapping[str, Any]) -> FeatureCache:
    if kind == "pab":
        return PyramidAttentionBroadcast(kind="pab", spatial=options["interval"], between=_ALL_LEVELS)
    return TaylorSeerCache(kind="taylorseer", lite=kind == _LITE, **options)
