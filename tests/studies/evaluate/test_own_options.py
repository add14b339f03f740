"""Presets with a guidance or a LoRA of their own beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from objectives.psnr import CEILING, Psnr
from studies.evaluate import EvalSettings
from studies.evaluate.plan import make_eval_plan
from studies.work.evaluator import Evaluator
from studies.work.own_options import Contender, OwnOptions
from studies.work.task import ChunkResult, Task
from tests.small_flux import small_flux
from tests.studies.toy import Brightness, ToyModel
from tests.test_lora import peft_folder
from tuner import presets
from tuner.errors import UserError
from tuner.models import ModelOptions, wrap
from tuner.schedule import Schedule, Stage

STAGES = Schedule(stages=(Stage(scale=0.5, sigmas=(1.0, 0.4)), Stage(sigmas=(0.7, 0.0))))
SIZE = (32, 32)


def png(outcome: Any) -> tuple[bytes, ...]:
    assert isinstance(outcome, ChunkResult), outcome
    return outcome.images


def of_prompts(own: OwnOptions | None, schedule: Schedule = STAGES) -> Task:
    return Task(schedule, ("a red fox", "a blue circle"), (5, 6), SIZE, keep_images=True, own=own)


def test_options_hold_for_the_units_of_work_that_have_them_whatever_comes_between(tmp_path: Path) -> None:
    """Text, latents and the LoRA are kept between units of work, and never for the wrong one."""
    options = [ModelOptions(guidance=9.0), ModelOptions(lora=str(peft_folder(tmp_path / "lora")))]
    tasks = [of_prompts(None), *(of_prompts(OwnOptions(one, str(one))) for one in options)]
    alone = [png(Evaluator(wrap(small_flux()), [Brightness()]).evaluate(task)) for task in tasks]
    assert len({task.key for task in tasks}) == len(set(alone)) == 3
    evaluator = Evaluator(wrap(small_flux()), [Brightness()])
    order = (0, 2, 2, 0, 1, 2, 1, 0)
    assert [png(evaluator.evaluate(tasks[index])) for index in order] == [alone[index] for index in order]


def test_a_baseline_of_another_schedule_or_with_a_lora_is_what_fidelity_is_measured_against(
    tmp_path: Path,
) -> None:
    own = OwnOptions(ModelOptions(lora=str(peft_folder(tmp_path / "lora"))), "lora")
    evaluator = Evaluator(wrap(small_flux()), [Psnr()], baseline=Contender("baseline", STAGES, own))
    for compared, equal in [(of_prompts(None), False), (of_prompts(own), True), (of_prompts(None), False)]:
        outcome = evaluator.evaluate(compared)
        assert isinstance(outcome, ChunkResult)
        assert [score == CEILING for score in outcome.scores["psnr"]] == [equal] * 2


def test_a_model_without_a_pipeline_takes_no_lora() -> None:
    evaluator = Evaluator(ToyModel(), [Brightness()])
    with pytest.raises(UserError, match="'toy' takes no LoRA"):
        evaluator.evaluate(of_prompts(OwnOptions(ModelOptions(lora="x/y"), "d")))
    assert isinstance(evaluator.evaluate(of_prompts(None)), ChunkResult)


def plan_of(*names: str, **changes: Any) -> Any:
    values = {"model": "sd3.5-medium", "presets": names, "objectives": ("clip",)}
    return make_eval_plan(EvalSettings(**(values | changes)))


def test_a_preset_is_priced_with_its_own_guidance_and_the_others_with_the_models() -> None:
    plan = plan_of("swd-sd3.5-medium-4", "plain:4")
    swd, plain, rival = plan.contenders
    preset = presets.load("swd-sd3.5-medium-4")
    assert swd.own is not None
    assert swd.own.options == preset.model_options
    assert (plain.own, rival.own, plan.baseline.own) == (None, None, None)
    assert preset.cost is not None
    assert plan.price(swd.schedule, swd.own).nfe == preset.cost.nfe == 4
    assert plan.price(swd.schedule, swd.own).tflops == pytest.approx(preset.cost.tflops, rel=1e-5)
    assert plan.price(plain.schedule, plain.own).nfe == 8  # two passes a step, with guidance
    assert plan.plain_rivals == {swd.name: rival.name} == {swd.name: "plain:2"}
    assert {task.own for task in plan.tasks(swd, len(plan.images))} == {swd.own}


def saved(folder: Path, name: str, **options: Any) -> str:
    preset = presets.load("swd-sd3.5-medium-4").model_copy(
        update={"name": name, "model_options": ModelOptions(**options)}
    )
    return str(presets.save(preset, folder / f"{name}.yaml"))


def test_options_that_the_model_has_anyway_are_no_preset_s_own(tmp_path: Path) -> None:
    file = saved(tmp_path, "same", guidance=3.0, lora="x/y:0.5")
    assert (
        make_eval_plan(
            EvalSettings(
                model="sd3.5-medium",
                presets=(file,),
                objectives=("clip",),
                options=ModelOptions(guidance=3.0, lora="x/y:0.5"),
            )
        )
        .contenders[0]
        .own
        is None
    )
    own = plan_of(file, options=ModelOptions(guidance=3.0)).contenders[0].own
    assert own is not None
    assert own.options == ModelOptions(lora="x/y:0.5")


def test_one_schedule_with_other_options_is_another_contender(tmp_path: Path) -> None:
    files = [saved(tmp_path, "one", guidance=1.0), saved(tmp_path, "two", guidance=2.0)]
    plan = plan_of(*files)
    one, two = plan.contenders[:2]
    assert one.schedule == two.schedule
    assert one.key != two.key


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        ({"lora": "/no/such.safetensors"}, {}, "LoRA '/no/such.safetensors' of preset 'p' does not exist"),
        ({"lora": "x/y"}, {"lora": "a/b"}, "cannot be added to 'a/b'; leave --lora out"),
        ({"frames": 9}, {}, "Preset 'p' is for 9 frames, and all are compared at 1; give --frames 9"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, options: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_of(saved(tmp_path, "p", **options), options=ModelOptions(**given))


def test_a_folder_is_of_one_baseline_where_an_objective_compares_with_its_images(tmp_path: Path) -> None:
    def identity(objective: str, baseline: str | None) -> dict[str, Any]:
        return dict(plan_of("plain:3", objectives=(objective,), baseline=baseline).identity)

    assert identity("clip", "plain:8") == identity("clip", None)
    own, explicit, other = (identity("psnr", baseline) for baseline in (None, "plain:40", "plain:8"))
    assert own == explicit
    assert other["baseline"] != own.get("baseline")
    made_by = [plan_of("plain:3", objectives=("psnr",), baseline=one).made_by["psnr"] for one in (None, "plain:8")]
    assert made_by[0] != made_by[1]
