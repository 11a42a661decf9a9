"""Images restored under a Markov random field: `denoise`, and `fit_ising` for its parameters."""

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .names import unknown
from .progress import Bar

if TYPE_CHECKING:
    from .denoising.energy import Ising, Restored
    from .denoising.fitting import FittedIsing

METHODS = ("icm", "graph_cut", "bp", "gibbs", "annealing", "mean_field")
SWEEPS = {"bp": 40, "gibbs": 100, "annealing": 100, "mean_field": 100}


@dataclass(frozen=True, eq=False, repr=False)
class Denoised:
    """A restored image, and how the method came to it."""

    image: Any
    """As the image given: an array or a tensor of its shape and type."""
    method: str
    """How it was found."""
    energy: Any
    """E(image, y) in nats: a number, or (B,) for a batch."""
    energies: np.ndarray
    """E after each sweep, (sweeps,) or (sweeps, B), of the state that the method was then in: for
    "gibbs" the state of the chain, whose mean over time `image` comes from; for "bp" what its
    messages then said, the best of which is `image`."""
    sweeps: int
    """Passes over all pixels; 1 for "graph_cut"."""
    seconds: float
    """Wall clock, checks included."""
    parameters: dict[str, float]
    """h, beta and eta of the energy."""
    converged: bool | None
    """ICM, mean field: whether it came to rest before the sweeps ran out; graph cut, and annealing,
    which ends with ICM: True; None where it says nothing."""
    rounding: Any = None
    """Graph cut: E is at most so far above the minimum, which is what scaling the terms to integers
    may have cost. A number, or (B,); None for other methods, which promise nothing."""
    probabilities: Any = None
    """p(x_i = +1 | y): by the chain for "gibbs", by q for "mean_field", else None."""

    def __str__(self) -> str:
        energy = np.atleast_1d(self.energy)
        said = f"{self.method}: energy {energy[0]:.8g} nats"
        if len(energy) > 1:
            said = f"{self.method}: energies {energy.min():.8g} to {energy.max():.8g} nats"
        if self.rounding is not None:
            most = float(np.max(self.rounding))
            said += f", within {most:.2g} of the minimum" if most else ", the minimum"
        said += f"; {self.sweeps} sweep{'s' if self.sweeps != 1 else ''}, {self.seconds:.3g} s"
        return said + ("; not at rest" if self.converged is False else "")

    __repr__ = __str__


def denoise(
    image: Any,
    method: str | None = None,
    *,
    h: float = 0.0,
    beta: float | None = None,
    eta: float | None = None,
    noise: float | None = None,
    neighbours: int = 4,
    order: str = "checkerboard",
    start: Any = None,
    sweeps: int | None = None,
    burn_in: int = 20,
    temperatures: tuple[float, float] = (4.0, 0.1),
    damping: float = 0.3,
    levels: int = 2,
    limits: tuple[float, float] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Denoised:
    """The image x of low energy behind a noisy image y.

    Of two levels, x and y in {-1, +1}:

        E(x, y) = h sum_i x_i - beta sum_{i, j neighbours} x_i x_j - eta sum_i x_i y_i,

    and p(x | y) is in proportion to exp(-E), in nats. With `levels` of 3 or more the image is grey,
    x_i is one of so many evenly spaced values, and

        E(x, y) = eta sum_i min((x_i - y_i)^2, limits[0])
                  + beta sum_{i, j neighbours} min(|x_i - x_j|, limits[1]).

    | method | finds |
    | --- | --- |
    | "graph_cut" | the minimum, exactly but for `Denoised.rounding`; needs beta >= 0 |
    | "icm" | a state that no single flip improves, near `start` |
    | "bp" | a state of low energy by max-product belief propagation; every beta, and grey images |
    | "annealing" | a state of low energy by Gibbs sweeps under a falling temperature, then ICM |
    | "gibbs" | the more probable state of each pixel, max p(x_i, y), by Gibbs sampling |
    | "mean_field" | the same by independent pixels, q(x) = prod_i q_i(x_i) |

    Args:
        image: y, (H, W) or a batch (B, H, W): a tensor or an array of -1 and +1; a grey one holds
            finite numbers. The answer is of the same kind and type.
        method: None for "graph_cut" where it applies (two levels, beta >= 0), else "bp".
        h: bias; positive values favour -1.
        beta: smoothness, 1 unless `noise` says otherwise.
        eta: faith in the image, 2.1 unless `noise` says otherwise.
        noise: the probability p that a pixel was flipped: eta = log((1 - p) / p) / 2, which is what
            Bayes' rule asks for, and beta = eta / 2, unless given. For grey images the standard
            deviation: eta = 1 / (2 noise^2), beta = 1 / (2 noise).
        neighbours: 4, or 8 with the diagonals (4 alone for grey images).
        order: of ICM: "checkerboard", all pixels of a colour at once (two colours, four with
            diagonals), or "raster", pixel by pixel in plain Python, as the textbook has it.
        start: where "icm", "gibbs" and "annealing" begin; None for the image itself.
        sweeps: at most; None for until it rests (ICM), 40 ("bp"), 100 (the others).
        burn_in: Gibbs sweeps before the `sweeps` that count.
        temperatures: of annealing, the first and the last; T divides E.
        damping: of "mean_field", and "bp" of two levels: the share of the old mean or message kept,
            in [0, 1).
        levels: 2, or the number of values of a grey image: they run from 0 to 255 for uint8, else
            from the image's least value to its largest. An image of an integer type comes back
            rounded.
        limits: of grey images: the largest squared difference and the largest step that count;
            None for (infinity, a fifth of the range).
        seed: of "gibbs", "annealing", and "bp" of two levels, a whole number of 0 or more; the same
            seed gives the same image on a device.
        progress: a bar on the error stream where it takes more than two seconds.

    Raises:
        TypeError: no image of numbers, a parameter that is no number.
        ValueError: an image that is not of -1 and +1; "graph_cut" with beta < 0, as its energy is
            not submodular; a method that grey images do not have; arguments out of range.

    Source: Bishop, PRML, 8.3.3; Besag (1986), JRSS B 48, for ICM; Greig, Porteous and Seheult
        (1989), JRSS B 51, for the cut; Geman and Geman (1984), PAMI 6, for annealing; Felzenszwalb
        and Huttenlocher (2006), IJCV 70, for grey images.
    """
    import torch

    from .denoising.images import (
        LARGEST,
        binary,
        four_or_eight,
        pair_of_numbers,
        real,
        shape,
        tensor,
        whole,
    )

    began = time.perf_counter()
    if method is not None and method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    if order not in ("checkerboard", "raster"):
        raise ValueError(unknown("order", order, ("checkerboard", "raster")))
    whole("levels", levels, 2)
    neighbours, h = four_or_eight(neighbours), real("h", h)
    whole("burn_in", burn_in, 0)
    whole("seed", seed, 0)
    seed = int(seed) % 2**63  # what torch's generators take
    if sweeps is not None:
        whole("sweeps", sweeps, 1)
    if not 0 <= real("damping", damping) < 1:
        raise ValueError(f"damping must be in [0, 1); got {damping!r}")
    pair = pair_of_numbers(temperatures)
    if not pair or not all(1 / LARGEST <= t <= LARGEST for t in temperatures):
        raise ValueError(
            f"temperatures must be two positive numbers, {1 / LARGEST:g} to {LARGEST:g}; got "
            f"{temperatures!r}"
        )
    if levels > 2:
        if method not in (None, "bp") or neighbours != 4 or h:
            raise ValueError(
                "grey images (levels > 2) are restored by method='bp', with neighbours=4 and h=0; "
                f"got method={method!r}, neighbours={neighbours}, h={h:g}"
            )
        from .denoising.grey import model_of

        given = tensor(image, "image")
        y = given.double()
        if not torch.isfinite(y).all():
            raise ValueError("the image holds NaN or infinity; a grey image is of finite numbers")
        grey = model_of(y, given.dtype == torch.uint8, levels, beta, eta, noise, limits)
        with Bar("denoising by bp", sweeps or SWEEPS["bp"], progress) as bar:
            found = grey.restore(y, sweeps or SWEEPS["bp"], bar)
        if not given.is_floating_point():
            found = replace(found, image=found.image.round())
        parameters = {"h": 0.0, "beta": grey.beta, "eta": grey.eta}
        energy = grey.energy(found.image, y)
        return _denoised(image, "bp", found, energy, parameters, began)

    if limits is not None:
        raise ValueError("limits belong to grey images; say how many levels, levels=K of 3 or more")
    model = _model(h, beta, eta, noise, neighbours)
    chosen = method or ("graph_cut" if model.beta >= 0 else "bp")
    y = binary(image, "image")
    first = y if start is None else binary(start, "start").to(y.device)
    if first.shape != y.shape:
        raise ValueError(f"start has shape {shape(start)}, the image {shape(image)}")
    if chosen == "graph_cut" and model.beta < 0:
        raise ValueError(
            f"beta is {model.beta:g}: neighbours that repel make the energy not submodular, and no "
            "cut minimises it; use method='bp', 'annealing' or 'icm'"
        )
    ends = len(y) if chosen == "graph_cut" else sweeps or SWEEPS.get(chosen)
    ends = ends + burn_in if ends and chosen == "gibbs" else ends
    with Bar(f"denoising by {chosen}", ends, progress) as bar:
        if chosen == "graph_cut":
            found = _by_cuts(model, y, bar)
        elif chosen == "bp":
            from .denoising import max_product

            found = max_product.max_product(model, y, sweeps or SWEEPS[chosen], damping, seed, bar)
        elif chosen == "icm":
            from .denoising import icm

            found = getattr(icm, order)(model, y, first, sweeps, bar)
        elif chosen == "mean_field":
            from .denoising import naive_mean_field

            found = naive_mean_field.mean_field(model, y, sweeps or SWEEPS[chosen], damping, bar)
        else:
            from .denoising import sampling

            many = sweeps or SWEEPS[chosen]
            if chosen == "gibbs":
                found = sampling.posterior_mode(model, y, first, many, burn_in, seed, bar)
            else:
                found = sampling.annealing(model, y, first, many, temperatures, seed, bar)
    parameters = {"h": model.h, "beta": model.beta, "eta": model.eta}
    return _denoised(image, chosen, found, model.energy(found.image, y), parameters, began)


def fit_ising(
    clean: Any,
    noisy: Any,
    method: str = "graph_cut",
    *,
    neighbours: int = 4,
    penalty: float = 1.0,
    evaluations: int = 80,
    progress: bool = True,
    **options: Any,
) -> "FittedIsing":
    """h, beta and eta from clean images x and noisy ones y, in two ways that are compared.

    Pseudo-likelihood: the maximum over (h, beta, eta) of

        sum_i log p(x_i | neighbours, y) - penalty / 2 (h^2 + beta^2 + eta^2),
        log p(x_i | neighbours, y) = log sigma(2 x_i (beta sum_{j next to i} x_j + eta y_i - h)),

    which is concave and needs no partition function. It is a logistic regression whose data are few
    distinct rows, counted once; Newton's method finds its maximum.

    Direct search: the least share of wrong pixels of `denoise(noisy, method, ...)`, by a pattern
    search that starts at the better of the pseudo-likelihood's answer and the one that the share of
    flipped pixels gives (`noise` of `denoise`). The minimum of E, as of ICM and the cut, stays the
    same when all three parameters are scaled alike; for these eta is held.

    Args:
        clean, noisy: (H, W) or (B, H, W) of -1 and +1.
        method: of `denoise`, for the errors of both and for the search.
        neighbours: 4 or 8.
        penalty: the precision of the Gaussian prior on each parameter, above 0: without one the
            maximum is at infinity where clean and noisy images agree everywhere.
        evaluations: images denoised in the search, at most.
        progress: show a bar on the error stream where it takes more than two seconds.
        options: of `denoise`, such as seed, sweeps.

    Raises:
        ValueError: images not of -1 and +1 or of different shapes; arguments out of range.

    Source: Besag (1975), The Statistician 24, for pseudo-likelihood; Hooke and Jeeves (1961),
        JACM 8, for the pattern search.
    """
    from .denoising import fitting
    from .denoising.images import binary, four_or_eight, real, shape, whole

    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    taken = {"h", "beta", "eta", "noise", "levels", "limits", "progress"} & {*options}
    if taken:
        raise ValueError(f"fit_ising finds or sets {', '.join(sorted(taken))}: leave it out")
    whole("evaluations", evaluations, 2)
    neighbours = four_or_eight(neighbours)
    if not real("penalty", penalty) > 0:
        raise ValueError(f"penalty must be a positive number; got {penalty!r}")
    x, y = binary(clean, "clean"), binary(noisy, "noisy")
    if x.shape != y.shape:
        raise ValueError(f"clean has shape {shape(clean)}, noisy {shape(noisy)}: they must agree")
    x = x.to(y.device)

    def wrong(parameters: dict[str, Any]) -> float:
        found = denoise(
            y, method, neighbours=neighbours, progress=False, **parameters, **options
        ).image
        return float((found != x).double().mean())

    free = ("h", "beta", "eta") if method in ("gibbs", "mean_field", "annealing") else ("h", "beta")
    learned = fitting.pseudo_likelihood(x, y, neighbours, penalty)
    with Bar("fitting by direct search", evaluations, progress) as bar:
        return fitting.search(
            x, y, learned, wrong, free, method, method == "graph_cut", evaluations, bar
        )


def _by_cuts(model: "Ising", y: Any, bar: Bar) -> "Restored":
    import torch

    from .denoising.energy import Restored
    from .denoising.graph_cut import minimum_cut

    images, rounding = [], []
    for done, one in enumerate(y.cpu().numpy()):
        # Half the energy's differences: h - eta y for +1, beta for neighbours that differ.
        cut = minimum_cut(
            model.h - model.eta * one, *[model.beta] * (2 if model.neighbours == 4 else 4)
        )
        images.append(np.where(cut.labels, 1, -1).astype(np.int8))
        rounding.append(2 * cut.rounding)
        bar.at(done + 1)
    image = torch.from_numpy(np.stack(images)).to(y.device)
    return Restored(image, [model.energy(image, y)], True, np.array(rounding))


def _model(
    h: float, beta: float | None, eta: float | None, noise: float | None, neighbours: int
) -> "Ising":
    from .denoising.energy import Ising
    from .denoising.images import real

    if noise is not None:
        noise = real("noise", noise)
        if not 0 < noise < 0.5:
            advice = ""
            if 0.5 < noise < 1:
                advice = f": flip the image's signs, and give noise={1 - noise:g}"
            elif noise > 1:
                advice = ": a grey image, whose noise is a standard deviation, needs levels="
            raise ValueError(
                f"noise is the probability of a flip, above 0 and below .5; got {noise:g}{advice}"
            )
        faith = math.log((1 - noise) / noise) / 2
        eta = faith if eta is None else eta
        beta = eta / 2 if beta is None else beta
    beta = real("beta", 1.0 if beta is None else beta)
    return Ising(h, beta, real("eta", 2.1 if eta is None else eta), neighbours)


def _denoised(
    given: Any,
    method: str,
    found: "Restored",
    energy: np.ndarray,
    parameters: dict[str, float],
    began: float,
) -> Denoised:
    """The answer in the shape and type of what was given."""
    import torch

    single = np.ndim(given) == 2

    def like(values: Any, typed: bool) -> Any:
        values = values[0] if single else values
        if isinstance(given, torch.Tensor):
            return values.to(given.dtype) if typed else values
        values = values.cpu().numpy()
        return values.astype(np.asarray(given).dtype) if typed else values

    def number(values: np.ndarray) -> Any:
        return float(values[0]) if single else values

    energies = np.stack(found.energies)  # (sweeps, B)
    return Denoised(
        like(found.image, typed=True),
        method,
        number(energy),
        energies[:, 0] if single else energies,
        len(energies),
        time.perf_counter() - began,
        parameters,
        found.converged,
        None if found.rounding is None else number(found.rounding),
        None if found.probabilities is None else like(found.probabilities, typed=False),
    )
