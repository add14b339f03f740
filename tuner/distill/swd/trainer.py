"""One training step of scale-wise distillation, and the state that steps change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tuner.distill.swd.data import ImageFolder, encode_at_scales
from tuner.distill.swd.draws import Draws
from tuner.distill.swd.networks import Head, denoiser, trainable, with_lora
from tuner.distill.swd.objective import Objective, StageBatch, predict
from tuner.distill.swd.settings import RESAMPLE, SwdSettings
from tuner.models import Blueprint, Conditioning, Size
from tuner.models._pipeline_model import PipelineModel
from tuner.resample import resize
from tuner.sampling import renoise

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_GRADIENT = 10.0
WEIGHT_DECAY = 0.01
COOLED_SHARE = 0.5
"""Share of the steps, the last ones, in which the learning rates fall linearly to zero."""
_FINE_GRID = 1000


class Trainer:
    """Teacher, student and critic, and the steps that train the latter two.

    Everything random in a step comes from (seed, step), and each process takes its rows of one common batch: the
    weights depend neither on interruptions nor, up to rounding, on the number of processes.

    Args:
        settings: What to do.
        teacher: The pretrained model; its weights are shared and stay as they are.
        data: Real images.
        accelerator: Device and processes; the gradients of all processes are averaged.
    """

    def __init__(self, settings: SwdSettings, teacher: PipelineModel, data: ImageFolder, accelerator: Accelerator):
        self.settings = settings
        self.step = 0
        self.student = with_lora(teacher, settings.rank, settings.seed)
        critic = with_lora(teacher, settings.rank, settings.seed + 1)
        head = _head(teacher, settings.seed)
        denoiser(teacher).requires_grad_(False)
        if settings.gradient_checkpointing:
            for model in (teacher, self.student, critic):
                denoiser(model).enable_gradient_checkpointing()
        self._teacher = teacher
        self._data = data
        self._accelerator = accelerator
        self._objective = Objective(settings, teacher, critic, head)
        known = teacher.blueprint
        self._sizes = [known.stage_size(known.size, stage.scale) for stage in settings.schedule.stages]
        self._shifts = [own_shift(known, size) for size in self._sizes]
        self._student = _Trained(trainable(denoiser(self.student)), settings.rate, accelerator)
        self._critic = _Trained(
            [*trainable(denoiser(critic)), *head.parameters()], settings.critic_rate, accelerator
        )

    def train_step(self) -> dict[str, float]:
        """Trains the critic, if there is one, and then the student; returns each term's mean over the stages."""
        cooling = min(1.0, (1 - self.step / self.settings.steps) / COOLED_SHARE)
        turns = self.settings.critic_steps if self.settings.critic else 0
        means: dict[str, float] = {}
        for turn in range(turns):
            draws = self._draws(f"critic {turn}")
            for batch in self._stages(draws, gradients=False):
                self._backward(self._objective.critic(batch, draws), means, 1 / turns)
            self._critic.update(cooling)
        draws = self._draws("student")
        for batch in self._stages(draws, gradients=True):
            self._backward(self._objective.student(batch, draws), means)
        self._student.update(cooling)
        self._critic.forget()  # the student's adversarial term leaves gradients there
        self.step += 1
        return means

    def state(self) -> dict[str, Any]:
        """Returns all that a step changes, for ``load_state``."""
        return {"step": self.step, "student": self._student.state(), "critic": self._critic.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what ``state`` returned, to the same bits on the same machine."""
        self.step = state["step"]
        self._student.load_state(state["student"])
        self._critic.load_state(state["critic"])

    def _draws(self, purpose: str) -> Draws:
        key = f"{self.settings.seed}/{self.step}/{purpose}"
        return Draws(key, self._accelerator.process_index, self._accelerator.num_processes)

    def _backward(self, terms: Mapping[Any, torch.Tensor], means: dict[str, float], share: float = 1.0) -> None:
        stages = len(self.settings.scales)
        torch.autograd.backward(torch.stack(list(terms.values())).sum() / stages)
        for name, value in terms.items():
            means[name] = means.get(name, 0.0) + share * value.item() / stages

    def _stages(self, draws: Draws, gradients: bool) -> Iterator[StageBatch]:
        """Lets the student make a batch of images, stage by stage: the scale-wise training step of SwD.

        No gradient passes from a stage to the one before it.
        """
        stages = self.settings.schedule.stages
        reals, conditioning = self._real(draws)
        noises = [draws.noise(real) for real in reals]
        before = reals[0]  # the first stage starts from noise alone, whatever this is
        for stage, real, noise, shift in zip(stages, reals, noises, self._shifts, strict=True):
            sigma = stage.sigmas[0]
            start = renoise(resize(before, (real.shape[-2], real.shape[-1]), RESAMPLE), noise, 0.0, sigma)
            with torch.set_grad_enabled(gradients):
                generated = predict(self.student, start, sigma, conditioning)
            yield StageBatch(real, generated, conditioning, shift)
            before = real if self.settings.starts == "data" else generated.detach()

    @torch.no_grad()
    def _real(self, draws: Draws) -> tuple[list[torch.Tensor], Conditioning]:
        """Draws real images: their latents at each stage's size, and their captions."""
        model = self._teacher
        chosen = draws.images(len(self._data), self.settings.batch)
        pixels = self._data.pixels(chosen, model.blueprint.size).to(self._accelerator.device)
        return encode_at_scales(model, pixels, self._sizes), model.encode(self._data.texts(chosen))


def own_shift(model: Blueprint, size: Size) -> float:
    """Returns the shift of the model's own noise levels at a size: the odds of what an unshifted 1/2 becomes."""
    middle = model.sigmas(_FINE_GRID, size)[_FINE_GRID // 2]
    return middle / (1 - middle)


class _Trained:
    """Parameters and their optimiser."""

    def __init__(self, parameters: list[torch.nn.Parameter], rate: float, accelerator: Accelerator):
        self._parameters = parameters
        self._rate = rate
        self._accelerator = accelerator
        self._optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=WEIGHT_DECAY)

    def update(self, cooling: float) -> None:
        """Averages the gradients over processes, clips them and takes a step at ``cooling`` times the rate."""
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad = self._accelerator.reduce(parameter.grad, "mean")
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * cooling
        self._optimiser.step()
        self.forget()

    def forget(self) -> None:
        """Drops the gradients."""
        self._optimiser.zero_grad()

    def state(self) -> dict[str, Any]:
        return {"parameters": [p.detach() for p in self._parameters], "optimiser": self._optimiser.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for parameter, value in zip(self._parameters, state["parameters"], strict=True):
            parameter.data.copy_(value)
        self._optimiser.load_state_dict(state["optimiser"])


def _head(model: PipelineModel, seed: int) -> Head:
    """Makes a discriminator's head for the tokens of the middle block."""
    width = denoiser(model).inner_dim
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Head(width).to(denoiser(model).device)
