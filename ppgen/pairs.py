"""Pictures in pairs: what a model generates, and the picture that it is given for it.

``sketch`` draws the lines of a picture, so that any folder of images becomes pairs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .images import Box, center_square, load_folder, with_progress

# Of the line drawing, in pixels, and in units of the picture's own contrast.
FINE, COARSE = 0.6, 0.96  # standard deviations of the two blurs, at a ratio of 1.6
THRESHOLD, SHARPNESS, FLOOR = 0.25, 0.7, 0.004
GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
SPLITS = ("train", "validation", "test")


def sketch(image: Any) -> Any:
    """A line drawing of pictures, dark on white: what is darker than its surroundings.

    With g the grey picture and G_s a Gaussian blur of s pixels, d = G_0.6 g - G_0.96 g is negative
    on lines. In units of its root mean square over the picture, u = d / rms(d), the drawing is 1
    where u >= -0.25 and 1 + tanh(0.7 (u + 0.25)) below: the extended difference of Gaussians
    (Winnemoeller, Kyprianidis and Olsen 2012, equation 5) with all of its weight on the
    difference, so that dark grounds stay white.

    Args:
        image: (..., C, H, W) with C of 1 or 3, a tensor or an array: bytes, or floats in [0, 1].

    Returns:
        (..., 1, H, W) of the same kind: bytes for bytes, else float32 in [0, 1]. The drawing of a
        picture is the same alone and among others.

    Raises:
        TypeError: neither a tensor nor an array of bytes or floats.
        ValueError: another shape, or floats outside [0, 1].
    """
    if isinstance(image, Tensor):
        return torch.from_numpy(sketch(image.detach().cpu().numpy())).to(image.device)
    if not isinstance(image, np.ndarray) or (image.dtype != np.uint8 and image.dtype.kind != "f"):
        kind = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"image is {kind}: expected a tensor or array of bytes, or of floats")
    if image.ndim < 3 or image.shape[-3] not in (1, 3) or image.size == 0:
        raise ValueError(f"image has shape {image.shape}: expected (..., C, H, W) with C = 1 or 3")
    if image.dtype == np.uint8:
        return (_lines(image / 255) * 255).round().astype(np.uint8)
    if not (image.min() >= 0 and image.max() <= 1):  # as it is not for NaN
        raise ValueError(
            f"image has values from {image.min():.4g} to {image.max():.4g}: expected floats in "
            "[0, 1], or bytes"
        )
    return _lines(image.astype(np.float64)).astype(np.float32)


def _lines(image: np.ndarray) -> np.ndarray:
    """`sketch` of float64 (..., C, H, W) in [0, 1], in float64."""
    from scipy.ndimage import gaussian_filter

    weights = np.array(GREY if image.shape[-3] == 3 else (1.0,))[:, None, None]
    grey = (image * weights).sum(-3, keepdims=True)  # (..., 1, H, W)
    fine, coarse = (gaussian_filter(grey, s, axes=(-2, -1), mode="nearest") for s in (FINE, COARSE))
    difference = fine - coarse
    # A floor: on an empty picture the faintest noise is no line.
    contrast = np.sqrt((difference**2).mean((-2, -1), keepdims=True)) + FLOOR
    return 1 + np.tanh(SHARPNESS * np.minimum(difference / contrast + THRESHOLD, 0))


def load_pairs(location: str, size: int | None, seed: int) -> dict:
    """The pictures of a folder, each with its sketch."""
    found = load_folder(location, size, seed, source="pairs")
    parts = {key: found[key][0] for key in SPLITS if key in found}
    pictures = [picture for x in parts.values() for picture in x]
    drawn = list(with_progress(map(sketch, pictures), len(pictures), title="drawing sketches"))
    start = 0
    for key, x in parts.items():
        parts[key] = (x, np.stack(drawn[start : start + len(x)]))
        start += len(x)
    return {"name": found["name"], **parts, "levels": 256, "condition": "sketch"}


def load_halves(location: str, size: int | None, seed: int) -> dict:
    """Pictures side by side in one file: the left is the condition, the right x."""
    found, given = (
        load_folder(location, size, seed, source="halves", cut=cut) for cut in (_right, _left)
    )
    parts = {key: (found[key][0], given[key][0]) for key in SPLITS if key in found}
    return {"name": found["name"], **parts, "levels": 256, "condition": "left"}


def _left(width: int, height: int) -> Box:
    """The center square of a picture's left half."""
    if 2 * width < 3 * height:
        raise ValueError(
            f"it is {width}x{height}: expected two pictures of one size side by side, as wide as "
            "twice the height"
        )
    return center_square(width // 2, height)


def _right(width: int, height: int) -> Box:
    left, top, right, bottom = _left(width, height)
    return left + width - width // 2, top, right + width - width // 2, bottom
