"""Sampling in bfloat16: when it is chosen, that it is in force, and that float32 stays float32."""

import pytest
import torch
from torch import Tensor, nn

import ppgen
from ppgen.models import inference
from ppgen.models.inference import inference_precision, native_bf16, resolved

CPU = torch.device("cpu")


class Seen(nn.Module):
    """A network that notes the precision of its convolution's answers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.types: set[torch.dtype] = set()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert x.dtype == torch.float32  # the chain itself is never rounded
        answer = self.convolution(x)
        self.types.add(answer.dtype)
        return answer


def program(network: str | nn.Module = "unet") -> ppgen.Diffusion:
    torch.manual_seed(0)
    made = ppgen.Diffusion(
        (1, 8, 8), levels=16, timesteps=20, network=network, channels=4, multipliers=(1, 2)
    )
    for weight in made.network.parameters():  # a fresh network answers zero
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return made.eval()


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("network", ["unet", "mlp"])
def test_auto_takes_bf16_for_convolutions_where_it_is_native(monkeypatch, native: bool, network):
    monkeypatch.setattr(inference, "native_bf16", lambda device: native)
    expected = "bf16-mixed" if native and network == "unet" else "32-true"
    made = program(network)
    assert resolved("auto", made.network, CPU) == expected
    assert resolved("32-true", made.network, CPU) == "32-true"
    assert resolved("bf16-mixed", made.network, CPU) == "bf16-mixed"
    drawn = {
        name: made.sample(2, mean=True, steps=5, seed=0, precision=name)
        for name in ("auto", "32-true", "bf16-mixed")
    }
    assert torch.equal(drawn["auto"], drawn[expected])
    assert torch.equal(drawn["auto"], made.sample(2, mean=True, steps=5, seed=0))
    assert not torch.equal(drawn["32-true"], drawn["bf16-mixed"])


@pytest.mark.parametrize(
    ("has", "native"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx512_bw": True, "avx512_bf16": False}, False),  # emulated there
        ({}, False),
    ],
)
def test_a_cpu_is_asked_what_it_has(monkeypatch, has: dict, native: bool):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert native_bf16(CPU) is native
    assert not native_bf16(torch.device("meta"))


@pytest.mark.parametrize(
    ("precision", "expected"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("sampler", ppgen.models.samplers.SAMPLERS)
def test_the_network_runs_in_the_precision_asked_for(sampler, outside, precision, expected):
    """Also where the caller has autocast on, and the chain is float32 in either."""
    network = Seen()
    with torch.autocast("cpu", torch.bfloat16, enabled=outside):
        x = program(network).sample(2, mean=True, sampler=sampler, steps=4, precision=precision)
    assert network.types == {expected}
    assert x.dtype == torch.float32 and x.isfinite().all()


def test_bf16_stays_near_float32_along_the_chain():
    """One start and one deterministic chain: roundings of 2^-8 of the noise add up to little."""
    made = program()
    one, other = (
        made.sample(16, mean=True, sampler="ddim", steps=10, seed=3, precision=precision)
        for precision in ("32-true", "bf16-mixed")
    )
    apart = (one - other).abs()
    assert 0 < apart.mean() < 0.01
    assert one.std() > 0.1


def test_guidance_takes_one_call_a_step_of_twice_the_examples():
    sizes: list[int] = []

    class Labelled(Seen):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().forward(x, t) * (1 + y[:, None, None, None])

    torch.manual_seed(0)
    made = ppgen.Diffusion((1, 8, 8), timesteps=20, network=Labelled(), num_classes=3).eval()
    made.sample(2, torch.tensor([0, 2]), mean=True, steps=4, guidance=2.0, precision="bf16-mixed")
    assert sizes == [4] * 4


def test_training_after_sampling_under_one_autocast():
    """Weights that sampling rounded are not those that training differentiates."""
    made = program()
    x = torch.randint(0, 16, (4, 1, 8, 8)) / 15
    with torch.autocast("cpu", torch.bfloat16):
        made.sample(2, mean=True, steps=2)
        made.train()
        loss, _ = ppgen.ELBO(made)(x)
    loss.backward()
    assert all(parameter.grad is not None for parameter in made.network.parameters())


def test_autocast_is_as_before_afterwards():
    with inference_precision("bf16-mixed", nn.Conv2d(1, 1, 1), CPU):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision must be .*'bf16'; did you mean bf16-mixed\?"):
        program().sample(1, precision="bf16")
