from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.distill.swd.losses import (
    HUBER,
    RBF_WIDTH,
    discriminator_loss,
    distribution_matching,
    generator_loss,
    patch_mmd,
)
from tuner.distill.swd.settings import KERNELS, Kernel


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


# The squared MMD of N(0, I) and N(1, I) in three dimensions, kernel width 1: 2 (1/3)^(3/2) (1 - exp(-3 / 6)).
GAUSSIANS_APART = 2 * 3**-1.5 * (1 - math.exp(-0.5))


@pytest.mark.parametrize(
    ("kernel", "scale", "apart"), [("linear", 1.0, 1 - HUBER), ("rbf", RBF_WIDTH, GAUSSIANS_APART)]
)
def test_the_patch_loss_is_zero_for_equal_gaussians_and_known_for_shifted_ones(
    kernel: Kernel, scale: float, apart: float
) -> None:
    x, same = scale * normal(8, 400, 3), scale * normal(8, 400, 3, seed=1)
    assert patch_mmd(x, same, kernel).item() == pytest.approx(0, abs=0.06)
    assert patch_mmd(x, same + scale, kernel).item() == pytest.approx(apart, rel=0.1)


@given(distance=st.floats(0, 50))
def test_the_linear_kernel_measures_the_distance_of_means(distance: float) -> None:
    x = normal(2, 5, 3)
    loss = patch_mmd(x, x + distance, "linear").item()
    assert loss == pytest.approx(math.sqrt(distance**2 + HUBER**2) - HUBER, abs=1e-4)


@given(distance=st.floats(0, 400))
def test_the_rbf_kernel_has_its_closed_form_for_two_points(distance: float) -> None:
    """Sets of one repeated point each: within a set the kernel is 1, between them exp(-d^2 / (2 width^2))."""
    x = torch.zeros(2, 6, 1)
    loss = patch_mmd(x, x + distance, "rbf").item()
    assert loss == pytest.approx(2 - 2 * math.exp(-(distance**2) / (2 * RBF_WIDTH**2)), abs=1e-5)


def test_the_rbf_kernel_tells_spreads_apart_that_the_linear_one_cannot() -> None:
    x = RBF_WIDTH * normal(1, 300, 2)
    x = x - x.mean(dim=1, keepdim=True)
    assert patch_mmd(x, 3 * x, "linear").item() == pytest.approx(0, abs=1e-3)
    assert patch_mmd(x, 3 * x, "rbf").item() > 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_patch_loss_pulls_generated_patches_towards_real_ones(kernel: Kernel) -> None:
    real = normal(2, 8, 3)
    student = (real + 5).requires_grad_()
    patch_mmd(student, real, kernel).backward()
    assert student.grad is not None
    assert (student.grad > 0).all()  # a step against the gradient lowers every value


def test_distribution_matching_follows_the_difference_of_the_two_predictions() -> None:
    student = normal(2, 3, 4, 4).requires_grad_()
    teacher, fake = normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    distribution_matching(student, teacher, fake).backward()
    scale = (student - teacher).abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(student.grad, ((fake - teacher) / scale / student.numel()).detach())


def test_distribution_matching_is_at_rest_where_teacher_and_fake_agree() -> None:
    student, same = normal(1, 3, 4, 4).requires_grad_(), normal(1, 3, 4, 4, seed=1)
    loss = distribution_matching(student, same, same)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_two_sides_of_the_adversarial_loss_pull_in_opposite_directions() -> None:
    logits = torch.zeros(3, requires_grad=True)
    assert generator_loss(logits).item() == pytest.approx(math.log(2))
    assert discriminator_loss(logits, logits).item() == pytest.approx(2 * math.log(2))
    (up,) = torch.autograd.grad(generator_loss(logits), logits)
    (down,) = torch.autograd.grad(discriminator_loss(torch.ones(3), logits), logits)
    assert (up < 0).all()
    assert (down > 0).all()
