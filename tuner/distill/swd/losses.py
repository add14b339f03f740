"""The losses of scale-wise distillation, as functions of tensors: nothing here knows a model.

B images, N tokens of D features per image, C channels of h x w latent pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tuner.distill.swd.settings import Kernel

RBF_WIDTHS = (0.5, 1.0, 2.0)
"""Widths of the RBF kernels, in units of the median distance between generated and real tokens of an image.

The published training code has one fixed width, 100 in units of the features. Where distances are 30, as on
`tiny`, the kernel is flat at that width: its gradient is 19 to 330 times smaller than the linear kernel's.
"""
HUBER = 1e-3
"""Where patch losses turn from quadratic to linear, as in the published training code."""


def patch_mmd(student_BND: torch.Tensor, real_BND: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """Measures how far apart the patches of generated and of real images lie, image by image.

    The patch loss of SwD (arXiv 2503.16397, "patch distribution matching"): every token of a middle block is a
    sample, and the squared maximum mean discrepancy (Gretton et al., "A Kernel Two-Sample Test", JMLR 2012,
    Eq. 5) compares the two sets of N tokens. With the linear kernel that is the distance of the two means, for
    which the published training code takes a pseudo-Huber loss of each feature. The RBF kernel is the sum of
    exp(-|x - y|^2 / (2 width^2)) over `RBF_WIDTHS`, and the loss is the discrepancy itself, a pseudo-Huber root of
    its square, so that both kernels pull about as hard.

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
        return _pseudo_huber(distance_BD**2).mean()
    between_BNN = _squared_distances(student_BND, real_BND)
    median_B11 = between_BNN.detach().flatten(1).median(dim=1).values[:, None, None].clamp(min=1e-12)

    def similarity(squared_BNN: torch.Tensor) -> torch.Tensor:
        scaled_BNN = squared_BNN / (2 * median_B11)
        kernels = [torch.exp(-scaled_BNN / width**2).mean(dim=(1, 2)) for width in RBF_WIDTHS]
        return torch.stack(kernels).sum(dim=0)

    within_B = similarity(_squared_distances(student_BND, student_BND))
    real_B = similarity(_squared_distances(real_BND, real_BND))
    return _pseudo_huber((within_B + real_B - 2 * similarity(between_BNN)).clamp(min=0)).mean()


def patch_distance(student_BND: torch.Tensor, real_BND: torch.Tensor) -> torch.Tensor:
    """Measures how far apart the patches of generated and real images lie, place by place.

    The naive form of the patch loss, to which SwD compares its own (Table 6): every token is pulled to the real
    image's token at the same place.

    Args:
        student_BND: Features of generated images.
        real_BND: Features of real ones.

    Returns:
        The mean pseudo-Huber distance of a feature, a scalar.
    """
    return _pseudo_huber((student_BND.float() - real_BND.float()) ** 2).mean()


def _pseudo_huber(squared: torch.Tensor) -> torch.Tensor:
    return (squared + HUBER**2).sqrt() - HUBER


def _squared_distances(x_BND: torch.Tensor, y_BND: torch.Tensor) -> torch.Tensor:
    squared_BN1 = (x_BND**2).sum(dim=2, keepdim=True)
    squared_B1N = (y_BND**2).sum(dim=2)[:, None]
    return (squared_BN1 + squared_B1N - 2 * x_BND @ y_BND.mT).clamp(min=0)


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
