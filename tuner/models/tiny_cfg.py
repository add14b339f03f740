"""`tiny-cfg`: the embedded model without guidance distillation; see ``docs/tiny.md``.

It makes two network passes for each velocity, so guidance scales and intervals can be searched on any machine.
"""

from __future__ import annotations

from dataclasses import replace

from tuner.models.flux import TwoPassFluxBlueprint
from tuner.models.tiny import embedded
from tuner.tiny import TWO_PASS_FOLDER

BLUEPRINT = replace(embedded(TwoPassFluxBlueprint, "tiny-cfg", TWO_PASS_FOLDER), guidance=2.5)
