"""Compares presets with the baseline and with plain steps at the same cost, on unseen prompts."""

from __future__ import annotations

from studies.evaluate.results import EvalResult, Evaluated
from studies.evaluate.run import evaluate
from studies.evaluate.settings import EvalSettings
from studies.evaluate.verification import Verification, verify

__all__ = ["EvalResult", "EvalSettings", "Evaluated", "Verification", "evaluate", "verify"]
