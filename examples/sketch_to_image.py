"""From a sketch to a picture: pix2pix learns to colour what a few lines enclose.

    x = G(sketch)

Pictures of lanterns, leaves and moons become pairs by drawing their lines. The shape tells the
colour: lanterns are red, leaves are green, moons are yellow. No line says so, and the model has to
see the shape to know. Only the shade of the paper cannot be known. The dropout that is the noise of
pix2pix is left out. Beside the model stands the mean of all training pictures, the best that can be
said without looking at the sketch.
"""

import argparse
from pathlib import Path

import torch

from ppgen import fit
from ppgen.data import Dataset
from ppgen.models import Pix2Pix
from ppgen.pair_pictures import pair_rows
from ppgen.pairs import sketch

SIDE, COUNT, STEPS = 32, 400, 900
COLOURS = torch.tensor([[0.8, 0.15, 0.1], [0.2, 0.55, 0.2], [0.95, 0.8, 0.25]])


def pictures(count, seed=0):
    """`count` pictures (count, 3, SIDE, SIDE) as bytes, and which shape each of them shows."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(count) % 3
    at = torch.arange(SIDE) + 0.5
    centre = SIDE * (0.35 + 0.3 * torch.rand(count, 2, 1, 1, generator=generator))
    size = SIDE * (0.2 + 0.1 * torch.rand(count, 1, 1, generator=generator))
    down, across = at[:, None] - centre[:, 0], at - centre[:, 1]  # (count, SIDE, SIDE)
    lantern = (down.abs() < size) & (across.abs() < 0.6 * size)
    leaf = down.abs() + 0.6 * across.abs() < 0.8 * size
    moon = down**2 + across**2 < size**2
    inside = torch.stack([lantern, leaf, moon])[kind, torch.arange(count)][:, None]
    paper = 0.85 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    x = torch.where(inside, COLOURS[kind][:, :, None, None], paper)
    return (x * 255).round().to(torch.uint8), inside


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("sketch_to_image.png"))
    out = parser.parse_args(argv).out

    x, _ = pictures(COUNT)
    held, inside = pictures(30, seed=1)
    parts = [(part, sketch(part)) for part in (x, held, held)]
    data = Dataset.from_tensors(*parts, levels=256, condition="sketch", name="shapes")
    torch.manual_seed(0)
    program = Pix2Pix(
        data.shape, condition_shape=data.condition_shapes[0], channels=12, dropout=0.0
    )
    fit(program, data, steps=STEPS, batch_size=8, lr=2e-3, warmup_steps=20, ema=0.98,
        validate_epochs=0, progress=False, device="cpu")  # fmt: skip

    truth, given = data.test.batch(slice(None))
    torch.manual_seed(1)
    drawn = program.sample(len(given), given, mean=True)
    mean = data.train.batch(slice(None))[0].mean(0)
    colours = (drawn * inside).sum((2, 3)) / inside.sum((2, 3))  # (30, 3): the mean inside
    named = torch.cdist(colours, COLOURS).argmin(1)
    found = {
        "distance of the drawing": (drawn - truth).abs().mean().item(),
        "distance of the mean picture": (mean - truth).abs().mean().item(),
        "shapes in their own colour": (named == torch.arange(30) % 3).float().mean().item(),
    }
    for name, value in found.items():
        print(f"{name:32} {value:.4f}")
    few = slice(0, 20)
    out.write_bytes(pair_rows({"sketch": given[few], "drawn": drawn[few], "true": truth[few]}))
    print(f"picture: {out}")
    return found


if __name__ == "__main__":
    main()
