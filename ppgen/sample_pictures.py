"""The pictures of `ppgen sample`: an image to paint anew, sheets of draws, films of their way."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = (0.85, 0.4, 0.3)  # the colour of what is to be painted
FILMED, FRAMES = 8, 60  # draws in a film, and its pictures at most
FRAME, LAST = 100, 3000  # milliseconds
SIDE = 64  # pixels of an image in a film at least


# Inpainting ------------------------------------------------------------------------------------


def check_images(option: str, shape: tuple[int, ...]) -> None:
    """Refuse an option for examples that are no images.

    Raises:
        ValueError: a shape other than (H, W), (1, H, W) and (3, H, W).
    """
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise ValueError(
            f"{option} is for grey or colour images; the run's examples have shape {shape}"
        )


def task(
    image: str, mask: str, shape: tuple[int, ...], levels: int | None
) -> "tuple[Tensor, Tensor]":
    """What is known of an image, from two files: x of an example's shape, and where it is kept.

    The image is taken as levels in [0, 1], grey or colour as the shape is. The second tensor is
    bool, (H, W), false where the mask is white.

    Raises:
        ValueError: not of images, or of reals; files of other sizes; nothing to paint.
    """
    check_images("--inpaint", shape)
    if levels is None:
        raise ValueError(
            "the run's data are reals, whose scale a picture does not tell: give known= and mask= "
            "to the program's sample in Python"
        )
    pixels = _pixels(image, grey=len(shape) == 2 or shape[0] == 1)  # (C, H, W)
    kept = _pixels(mask, grey=True)[0] < 128  # (H, W)
    size, other = (f"{t.shape[-1]}x{t.shape[-2]}" for t in (pixels, kept))
    if size != other:
        raise ValueError(
            f"{mask} has {other} pixels and {image} {size}: a mask has the size of its image"
        )
    height, width = shape[-2:]
    if size != f"{width}x{height}":
        raise ValueError(
            f"{image} has {size} pixels, and the model's images have {width}x{height}: cut or "
            f"resize it and its mask first, as Pillow's Image.open(FILE).resize(({width}, "
            f"{height})).save(NEW) does"
        )
    if kept.all():
        raise ValueError(f"{mask} has no white pixel: white is what is painted anew")
    level = (pixels.double() / 255 * (levels - 1)).round()
    return (level / (levels - 1)).float().reshape(shape), kept


def condition_from(path: str, shape: tuple[int, ...]) -> "Tensor":
    """A picture from a file as the condition of a model: float32 of this shape, in [0, 1].

    The largest part of the model's proportions is cut from its middle and resized, as data are;
    it becomes grey where the shape has one channel.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no picture, or a model whose conditions are neither grey nor in colour.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(
            f"--input is for grey or colour images; the run's conditions have shape {shape}"
        )
    pixels = _pixels(path, grey=shape[0] == 1).permute(1, 2, 0).numpy()  # (H, W, C)
    image = Image.fromarray(pixels[..., 0] if shape[0] == 1 else pixels)
    image = ImageOps.fit(image, (shape[2], shape[1]), Image.Resampling.BILINEAR)
    found = torch.from_numpy(np.array(image)).reshape(shape[1], shape[2], shape[0])
    return found.permute(2, 0, 1).float() / 255


def condition_sheet(x: "Tensor", condition: "Tensor", name: str | None) -> bytes:
    """Draws with what they were drawn for.

    Args:
        x: (n, C, H, W).
        condition: (n, C', H, W), in rows above those of x if they have a name; without one all
            are the same, and it comes first, or not at all where there is a single draw.
    """
    import torch

    from . import plots
    from .pair_pictures import in_colour, pair_rows

    if name is not None:
        return pair_rows({name: condition, "drawn": x})
    if len(x) == 1:
        return plots.image_grid(x, pad=0, scale=1)
    return plots.image_grid(torch.cat([in_colour(condition[:1]), in_colour(x)]), columns=10)


def _pixels(path: str, grey: bool) -> "Tensor":
    """The pixels of a picture, uint8 (1 or 3, H, W); what is transparent becomes white."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file: name an image")
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
                image = Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8))
            elif image.mode == "F":
                raise ValueError("its pixels are floats, save it with 8 bits a channel")
            elif image.has_transparency_data:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            pixels = np.array(image.convert("L" if grey else "RGB"))
    except UnidentifiedImageError:
        raise ValueError(f"{path} is no image of a format that Pillow reads") from None
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    found = torch.from_numpy(pixels)
    return found[None] if grey else found.permute(2, 0, 1)  # to (C, H, W)


def sheet(x: "Tensor", painted: "tuple[Tensor, Tensor] | None") -> bytes:
    """The draws; of an image painted anew also that image, and what of it is kept.

    Raises:
        ValueError: a shape that has no picture.
    """
    import torch

    from . import plots

    if painted is None:
        picture = plots.samples(x)
        if picture is None:
            raise ValueError(f"examples of shape {tuple(x.shape[1:])} have no picture")
        return picture
    known, mask = painted
    images = torch.cat([known[None].cpu(), x])
    images = images.reshape(len(images), -1, *x.shape[-2:]).expand(-1, 3, -1, -1)  # (n, 3, H, W)
    kept = torch.where(mask.cpu(), images[0], torch.tensor(UNKNOWN)[:, None, None])
    return plots.image_grid(torch.cat([images[:1], kept[None], images[1:]]), columns=10)


class Film:
    """Gathers what a sampler shows on its way, and makes a moving picture of it.

    Not all is kept: of every so many steps one, so that the memory does not grow with them.
    """

    def __init__(self, program: Any) -> None:
        import torch

        # Whatever the units in which the sampler works, `scaled` leads there from [0, 1].
        scaled = getattr(program, "scaled", lambda x: x)
        self.low, self.high = scaled(torch.tensor([0.0, 1.0])).tolist()
        self.calls, self.every = 0, 1
        self.kept: list[tuple[float, Tensor, Tensor]] = []  # t, x_t, x_0
        self.last: tuple[float, Tensor, Tensor] | None = None

    def __call__(self, seen: Any) -> None:
        if self.calls % self.every == 0 or seen.time == 0:
            self.last = (seen.time, *(self._image(x) for x in (seen.x, seen.x0)))
        if self.calls % self.every == 0 and self.last is not None:
            self.kept.append(self.last)
            if len(self.kept) == 2 * FRAMES:
                self.kept, self.every = self.kept[::2], 2 * self.every
        self.calls += 1

    def _image(self, x: "Tensor") -> "Tensor":
        # Spread over all draws, so that every class is seen.
        few = x[:: -(-len(x) // FILMED)].cpu().float()
        return (few - self.low) / (self.high - self.low)

    def gif(self) -> bytes:
        """At most `FRAMES` pictures, from noise to the finished draws, where it rests."""
        import torch
        from PIL import Image

        from . import plots

        seen = self.kept if self.last is self.kept[-1] else [*self.kept, self.last]
        chosen = torch.linspace(0, len(seen) - 1, min(FRAMES, len(seen))).round().long().tolist()
        frames = []
        for t, x, x0 in (seen[index] for index in chosen):
            scale = math.ceil(SIDE / min(x.shape[-2:]))
            names = [f"x at t = {t:.2f}", "x0 seen in it"]
            sheet = plots.image_grid(torch.cat([x, x0]), len(x), scale=scale, rows=names)
            frame = Image.open(io.BytesIO(sheet))
            frames.append(frame if frame.mode == "L" else frame.quantize(dither=Image.Dither.NONE))
        out = io.BytesIO()
        times = [FRAME] * (len(frames) - 1) + [LAST]
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
        return out.getvalue()
