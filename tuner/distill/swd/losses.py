"""The losses of scale-wise distillation, as functions of tensors: nothing here knows a model.

B images, N tokens of D features per image, C channels of h x w latent pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tuner.distill.swd.settings import Kernel

RBF_WIDTH = 100.0
"""Width of the RBF kernel in units of the features, as in the published training code."""
HUBER = 1e-3
"""Where the linear kernel's loss turns from quadratic to linear, as in the published training code."""


def patch_mmd(student_BND: torch.Tensor, real_BND: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """Measures how far apart the patches of generated and of real images lie, image by image.

    The patch loss of SwD (arXiv 2503.16397, "patch distribution matching"): every token of a middle block is a
    sample, and the squared maximum mean discrepancy (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012,
    Eq. 3) compares the two sets of N tokens. With the linear kernel that is the distance of the two means, for
    which the published training code takes a pseudo-Huber loss of each feature; with the RBF kernel
    exp(-|x - y|^2 / (2 width^2)) it is the unbiased estimate for a set with itself (diagonal left out).

    Args:
        student_BND: Features of generated images.
        real_BND: Features of real ones; image i is compared with image i.
        kernel: "linear" or "rbf".

    Returns:
        The mean over images, a scalar.
    """
    student_BND, real_BND = student_BND.float(), real_BND.float()
    if kernel == "linear":
        distance_BD = student_BND.mean(dim=1) - real_BND.mean(dim=1)
        return ((distance_BD**2 + HUBER**2).sqrt() - HUBER).mean()
    tokens = student_BND.shape[1]
    within = tokens * (tokens - 1)
    own = (_rbf(student_BND, student_BND).sum() + _rbf(real_BND, real_BND).sum()) / len(student_BND)
    return (own - 2 * tokens) / within - 2 * _rbf(student_BND, real_BND).mean()


def _rbf(x_BND: torch.Tensor, y_BND: torch.Tensor) -> torch.Tensor:
    squared_BN1 = (x_BND**2).sum(dim=2, keepdim=True)
    squared_B1N = (y_BND**2).sum(dim=2)[:, None]
    distance_BNN = (squared_BN1 + squared_B1N - 2 * x_BND @ y_BND.mT).clamp(min=0)
    return torch.exp(-distance_BNN / (2 * RBF_WIDTH**2))


def distribution_matching(
    student_BChw: torch.Tensor, teacher_BChw: torch.Tensor, fake_BChw: torch.Tensor
) -> torch.Tensor:
    """Moves generated images from where the fake model sees them to where the teacher does.

    Distribution matching distillation: the gradient of KL(generated | teacher's distribution) is the
    difference of the two scores, here of the two clean-image predictions at one noise level, normalised per
    image by how far the teacher's prediction is (DMD, arXiv 2311.18828, Eq. 7-8, which DMD2,
    arXiv 2405.14867, keeps). The value is chosen so that its gradient is that difference; as a number it is half
    of its mean square.

    Args:
        student_BChw: Generated latents, with gradient.
        teacher_BChw: The teacher's clean-image prediction of their noised versions, without.
        fake_BChw: The fake model's, without.

    Returns:
        A scalar.
    """
    with torch.no_grad():
        scale = (student_BChw - teacher_BChw).abs().mean(dim=(1, 2, 3), keepdim=True)
        target_BChw = student_BChw - (fake_BChw - teacher_BChw) / scale.clamp(min=1e-6)
    return 0.5 * F.mse_loss(student_BChw, target_BChw)


def discriminator_loss(real_B: torch.Tensor, generated_B: torch.Tensor) -> torch.Tensor:
    """Teaches the head to tell real images (positive logit) from generated ones (DMD2, section 4.3)."""
    return F.softplus(-real_B).mean() + F.softplus(generated_B).mean()


def generator_loss(generated_B: torch.Tensor) -> torch.Tensor:
    """Rewards the student for images that the head takes for real: the non-saturating form."""
    return F.softplus(-generated_B).mean()
