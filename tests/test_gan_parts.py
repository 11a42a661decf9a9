"""Parts of the adversarial networks: spectral norms, inner gradients, augmentation."""

import pytest
import torch
from torch import nn

from ppgen.models.gan_objectives import gradient_penalty
from ppgen.nn.augment import Augment, colour, cutout, translation
from ppgen.nn.input_gradient import input_gradient
from ppgen.nn.spectral import SpectralConv2d, SpectralLinear, advance


@pytest.mark.parametrize("layer", [SpectralLinear(7, 5), SpectralConv2d(3, 6, 4, 2, 1)])
def test_power_iteration_finds_the_spectral_norm(layer):
    with torch.no_grad():
        layer.weight += torch.randn_like(layer.weight)  # as training would move it
    for _ in range(100):
        advance(nn.Sequential(layer))
    sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    torch.testing.assert_close(layer.normalised(), layer.weight / sigma, rtol=1e-4, atol=1e-5)
    before = layer.u.clone()
    layer(torch.randn(2, 7) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 8, 8))
    assert torch.equal(layer.u, before)  # a forward pass leaves it as it is


def test_the_gradient_of_a_spectral_norm_is_that_of_the_singular_value():
    layer = SpectralLinear(4, 3).double()
    for _ in range(200):
        layer.iterate()
    c = torch.randn(3, 4, dtype=torch.float64)
    (found,) = torch.autograd.grad((layer.normalised() * c).sum(), layer.weight)
    weight = layer.weight.detach().clone().requires_grad_()
    exact = (weight / torch.linalg.matrix_norm(weight, 2) * c).sum()
    (expected,) = torch.autograd.grad(exact, weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("grad", [True, False])
def test_input_gradients_are_the_jacobian_rows(grad):
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 1))
    x = torch.randn(4, 3)
    with torch.set_grad_enabled(grad):
        found = input_gradient(network, x)
    jacobian = torch.autograd.functional.jacobian(network, x)  # (4, 1, 4, 3)
    torch.testing.assert_close(found.detach(), jacobian[torch.arange(4), 0, torch.arange(4)])
    assert x.grad is None and not x.requires_grad


def test_the_penalty_against_its_closed_form_and_finite_differences():
    linear = nn.Linear(6, 1).double()
    real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
    expected = (linear.weight.norm() - 1) ** 2
    torch.testing.assert_close(gradient_penalty(linear, real, fake), expected)
    network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def penalty():
        torch.manual_seed(0)
        return gradient_penalty(network, real, fake)

    weight = network[0].weight
    (found,) = torch.autograd.grad(penalty(), weight)
    step, index = 1e-4, (1, 2)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[index] += sign * step
        values.append(penalty().item())
        with torch.no_grad():
            weight[index] -= sign * step
    difference = (values[0] - values[1]) / (2 * step)
    assert found[index].item() == pytest.approx(difference, rel=1e-3)


def test_translation_moves_each_image_by_whole_pixels():
    x = torch.rand(50, 2, 16, 24) + 0.1
    found = translation(x)
    moves = set()
    for one, other in zip(x, found, strict=True):
        matches = []
        for down in range(-2, 3):
            for right in range(-3, 4):
                shifted = torch.zeros_like(one)
                shifted[:, max(down, 0) : 16 + min(down, 0), max(right, 0) : 24 + min(right, 0)] = (
                    one[:, max(-down, 0) : 16 + min(-down, 0), max(-right, 0) : 24 + min(-right, 0)]
                )
                if torch.equal(shifted, other):
                    matches.append((down, right))
        assert len(matches) == 1
        moves.add(matches[0])
    assert len(moves) > 15  # of 35, in 50 draws
    assert {abs(down) for down, _ in moves} == {0, 1, 2}


def test_cutout_puts_a_rectangle_to_zero():
    x = torch.ones(200, 1, 8, 12)
    found = cutout(x)[:, 0]
    assert set(found.unique().tolist()) == {0.0, 1.0}
    areas = []
    for image in found:
        gone = image == 0
        rows, columns = gone.any(1), gone.any(0)
        assert torch.equal(gone, rows[:, None] & columns)  # one rectangle
        for side, most in ((rows, 4), (columns, 6)):
            places = side.nonzero()
            assert places[-1] - places[0] + 1 == len(places) <= most
        areas.append(int(gone.sum()))
    assert max(areas) == 24 and min(areas) < 24  # also over the edge


def test_colour_is_affine_in_each_image_and_keeps_what_it_should():
    x = torch.rand(64, 1, 5, 5) * 2 - 1
    found = colour(x)
    centred = found - found.mean((1, 2, 3), keepdim=True)
    scale = centred.flatten(1).norm(dim=1) / (
        (x - x.mean((1, 2, 3), keepdim=True)).flatten(1).norm(dim=1)
    )
    assert 0.5 <= scale.min() < 0.7 and 1.3 < scale.max() <= 1.5  # contrast
    moved = (found - x).mean((1, 2, 3))
    assert -0.5 <= moved.min() < -0.3 and 0.3 < moved.max() <= 0.5  # brightness
    x = torch.rand(64, 3, 5, 5)
    grey = x.mean(1, keepdim=True).expand_as(x)
    spread = (colour(x) - colour(x).mean(1, keepdim=True)).abs().mean()
    assert spread > 0 and (colour(grey).std(1) < 1e-5).all()  # saturation leaves grey grey


def test_augmentation_is_differentiable_and_drawn_anew():
    augment = Augment("cutout, translation,colour")
    assert augment.names == ("colour", "translation", "cutout")
    x = torch.rand(4, 3, 8, 8, requires_grad=True)
    one, other = augment(x), augment(x)
    assert not torch.equal(one, other)
    (slope,) = torch.autograd.grad(one.sum(), x)
    assert slope.abs().sum() > 0
    assert Augment("none")(x) is x
