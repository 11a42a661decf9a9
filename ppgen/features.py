"""Extractors of features in which samples are judged, and their cache on disk.

Scores by different extractors say nothing about each other, so each extractor carries a digest of
its weights, and of what is made of them, by which scores are told apart.
"""

import contextlib
import hashlib
import inspect
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .data import Dataset
from .names import imported, near
from .run import unpack_weights, write_atomically
from .seeding import seeded

CHOICES = ("classifier", "random", "raw")
VERSION = 1  # of the networks below and their training: a new one for each change of either
WIDTH = 64  # features of our own networks
BATCH, ROWS = 128, 512
STEPS = (300, 1000)  # of the classifier: fewest and most


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns examples into features.

    Attributes:
        name: what it is, in words.
        digest: of its weights, and of a module not our own also of its class and its repr.
        network: x (n, *shape) as the data hand it out -> features (n, d), or (features, logits)
            where it is a classifier; in evaluation mode.
    """

    name: str
    digest: str
    network: nn.Module

    def __str__(self) -> str:
        return f"{self.name} [{self.digest}]"

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and logits (n, classes), None where it is no classifier.

        Raises:
            ValueError: it does not take such examples, or gives no features.
        """
        try:
            with torch.no_grad():
                found = self.network(x)
        except (RuntimeError, TypeError, IndexError) as error:
            shape, text = tuple(x.shape[1:]), " ".join(str(error).split())[:200]
            raise ValueError(f"{self} does not take examples of shape {shape}: {text}") from None
        parts = found if isinstance(found, (tuple, list)) else (found,)
        if len(parts) > 2 or not all(isinstance(p, Tensor) and p.shape[:1] == x.shape[:1] and
                                     p.ndim == 2 for p in parts):  # fmt: skip
            given = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
            raise ValueError(
                f"{self} gives {given} for {len(x)} examples: expected features (n, d), or "
                "(features, logits) of a classifier"
            )
        if not all(part.isfinite().all() for part in parts):
            raise ValueError(f"{self} gives features that are not finite")
        return parts[0], parts[1] if len(parts) == 2 else None


def default_features(dataset: Dataset) -> str:
    """ "raw" for points, "classifier" for labelled pictures, else "random"."""
    if len(dataset.shape) == 1:
        return "raw"
    return "classifier" if (dataset.num_classes or 0) > 1 else "random"


def extractor(
    features: str | nn.Module | None,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Extractor:
    """The extractor of a name, for a data set.

    Args:
        features: "classifier": a small network trained once on the training labels, and kept in
            the user's cache ($XDG_CACHE_HOME or ~/.cache, ppgen/features); "random": the same
            network untrained, each layer standardised on the training data, kept likewise; "raw":
            the values of x; "package.module.Class": any module made without arguments; a module;
            "inception:FILE": Inception-v3 by torch-fidelity with its weights file. None chooses,
            see `default_features`.
        dataset: whose training split the first two are made from.
        device: where it works.
        progress: show a progress bar.

    Raises:
        ValueError: no such extractor, no labels to train on, or a package that is not installed.
    """
    features = default_features(dataset) if features is None else features
    if isinstance(features, nn.Module):
        found = _named(type(features).__name__, features)
    elif features in ("classifier", "random"):
        found = _own(features, dataset, torch.device(device), progress)
    elif features == "raw":
        found = Extractor("raw", "values of x", nn.Flatten())
    elif features.startswith("inception:"):
        found = _inception(features.partition(":")[2])
    elif "." in features:
        cls = imported(features, "extractor", inspect.isclass)
        if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
            raise ValueError(f"extractor {features} is no class of nn.Module")
        with seeded(0):
            try:
                network = cls()
            except TypeError as error:
                raise ValueError(
                    f"extractor {features} cannot be made without arguments ({error}): name a "
                    "class that can, or give the module itself from Python"
                ) from None
        found = _named(features, network)
    else:
        raise ValueError(
            f"unknown features {features!r}{near(features, CHOICES)} (or inception:FILE, or "
            "package.module.Class)"
        )
    found.network.to(device).eval()
    return found


def _named(name: str, network: nn.Module) -> Extractor:
    cls = type(network)
    made = f"{cls.__module__}.{cls.__qualname__} {network!r}"  # of one state, another function
    return Extractor(name, _digest(network.state_dict(), made), network)


def _digest(state: dict[str, Tensor], made: str = "") -> str:
    found = hashlib.sha256(made.encode())
    for name, tensor in sorted(state.items()):  # a file keeps another order
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        found.update(values.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:8]


# Our own network ------------------------------------------------------------------------------


class Features(nn.Module):
    """A small network: convolutions of pictures, two hidden layers of vectors.

    x (n, *shape) -> standardised features (n, 64), and with `classes` also logits (n, classes),
    linear in the rectified features.
    """

    accuracy: Tensor

    def __init__(self, shape: tuple[int, ...], classes: int | None = None) -> None:
        super().__init__()
        self.channels = 1 if len(shape) == 2 else shape[0]
        self.picture = len(shape) in (2, 3)
        self.layers = nn.Sequential(*(_convolutions if self.picture else _hidden)(shape))
        self.head = None if classes is None else nn.Linear(WIDTH, classes)
        # Of held-out labels, in percent; kept with the weights.
        self.register_buffer("accuracy", torch.tensor(float("nan")))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.picture and x.ndim == 3:
            x = x.unsqueeze(1)  # (n, 1, H, W)
        features = self.layers(x if self.picture else x.flatten(1))
        return features if self.head is None else (features, self.head(features.relu()))


def _convolutions(shape: tuple[int, ...]) -> list[nn.Module]:
    side, inputs, width = min(shape[-2:]), 1 if len(shape) == 2 else shape[0], 16
    stride = max(1, side // 32)  # larger pictures are seen at some 32 x 32
    layers: list[nn.Module] = [nn.BatchNorm2d(inputs, affine=False)]
    layers += [nn.Conv2d(inputs, width, stride + 2, stride, padding=1), nn.BatchNorm2d(width)]
    layers.append(nn.ReLU())
    side //= stride
    while side >= 6:
        wider = min(2 * width, WIDTH)
        layers += [nn.MaxPool2d(2), nn.Conv2d(width, wider, 3, padding=1), nn.BatchNorm2d(wider)]
        layers.append(nn.ReLU())
        side, width = side // 2, wider
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, WIDTH)]
    return [*layers, nn.BatchNorm1d(WIDTH, affine=False)]


def _hidden(shape: tuple[int, ...]) -> list[nn.Module]:
    dims, width = math.prod(shape), 128
    layers: list[nn.Module] = [nn.BatchNorm1d(dims, affine=False)]
    for inputs in (dims, width):
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()]
    return [*layers, nn.Linear(width, WIDTH), nn.BatchNorm1d(WIDTH, affine=False)]


def _own(kind: str, dataset: Dataset, device: torch.device, progress: bool) -> Extractor:
    """The classifier or the untrained network of a data set, from the cache or made now."""
    classes = None
    if kind == "classifier":
        if dataset.num_classes is None or dataset.num_classes < 2:
            raise ValueError(
                f"{dataset.name} has {'no labels' if dataset.num_classes is None else 'one class'}"
                " to train a classifier on: choose the features random or raw, or a module"
            )
        classes = dataset.num_classes
    path = cache_folder() / f"{kind}-{_key(kind, dataset)}.safetensors"
    with seeded(0):
        network = Features(dataset.shape, classes)
    network.to(device)
    if not _restored(network, path):
        with seeded(0, device):
            make = _train if classes is not None else _standardise
            make(network, dataset, device, progress)
        try:
            write_atomically(path, _packed(network))
        except OSError as error:
            warnings.warn(f"the extractor is not kept in the cache ({error})", stacklevel=2)
    name = f"random network standardised on {dataset.name}"
    if classes is not None:
        name = f"classifier of {dataset.name} (test accuracy {network.accuracy.item():.1f}%)"
    return Extractor(name, _digest(network.state_dict()), network)


def _batches(dataset: Dataset, device: torch.device) -> Callable[[], tuple[Tensor, ...]]:
    """A function that hands out random batches of training examples."""
    train = dataset.train.to(device)
    size = min(BATCH, len(train))

    def batch() -> tuple[Tensor, ...]:
        return train.batch(torch.randint(len(train), (size,)).to(device))

    return batch


def _tracked(steps: int, text: str, progress: bool) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    return track(range(steps), text, console=Console(stderr=True), disable=not progress)


def _train(network: Features, dataset: Dataset, device: torch.device, progress: bool) -> None:
    """Cross-entropy of the training labels; the test labels only measure it."""
    steps = max(STEPS[0], min(STEPS[1], 20 * dataset.size // BATCH))
    batch = _batches(dataset, device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    network.train()
    for _ in _tracked(steps, "training a classifier (once; it is kept)", progress):
        x, y = batch()[:2]
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x)[1], y).backward()
        optimiser.step()
        rate.step()
    network.eval()
    test = dataset.test.to(device)
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), ROWS):
            x, y = test.batch(slice(start, start + ROWS))[:2]
            right += int((network(x)[1].argmax(1) == y).sum())
    network.accuracy.fill_(100 * right / len(test))


def _standardise(network: Features, dataset: Dataset, device: torch.device, progress: bool) -> None:
    """Set each layer's mean and scale to those of training data; its weights stay random."""
    batch = _batches(dataset, device)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain average of the batches
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(batch()[0])
    network.eval()


# The cache ------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where extractors are kept: $XDG_CACHE_HOME/ppgen/features, by default in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ppgen" / "features"


def _key(kind: str, dataset: Dataset) -> str:
    """Of everything that the network is made from."""
    train = dataset.train
    found = hashlib.sha256()
    for part in (kind, VERSION, torch.__version__, train.dynamic, train.maximum, dataset.classes):
        found.update(f"{part}\n".encode())
    parts = [train.stored]
    if kind == "classifier":  # its accuracy is told, so the test examples count
        parts += [*train.conditions[:1], dataset.test.stored, *dataset.test.conditions[:1]]
    for tensor in parts:
        found.update(f"{tuple(tensor.shape)}".encode())
        found.update(tensor.cpu().contiguous().numpy().data)
    return found.hexdigest()[:32]


def _packed(network: nn.Module) -> bytes:
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    state["digest"] = torch.tensor(list(bytes.fromhex(_digest(state))), dtype=torch.uint8)
    return safetensors.torch.save(state)


def _restored(network: nn.Module, path: Path) -> bool:
    """Fill in the weights of a file; whether there was a whole one. A damaged one is remade."""
    if not path.exists():
        return False
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError, SafetensorError):
        state = unpack_weights(path.read_bytes())
        if bytes(state.pop("digest").tolist()).hex() == _digest(state):
            network.load_state_dict(state)
            network.eval()
            return True
    warnings.warn(f"{path} is damaged: the extractor is made again", stacklevel=2)
    return False


# Inception ------------------------------------------------------------------------------------


class Inception(nn.Module):
    """Pictures in [0, 1] -> the 2048 features and 1008 logits of an Inception-v3 over bytes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        if x.ndim == 3:
            x = x.unsqueeze(1)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)  # grey as colour
        return self.network((255 * x.clamp(0, 1)).round().to(torch.uint8))


def _inception(path: str) -> Extractor:
    if not Path(path).is_file():
        raise ValueError(f"features inception:{path}: there is no such file of weights")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ValueError(
            f"features inception:FILE need the packages torch-fidelity and torchvision "
            f"({error}): pip install torch-fidelity torchvision, or choose other features"
        ) from None
    wanted = ["2048", "logits_unbiased"]
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", wanted, path)
    except Exception as error:  # torch-fidelity's, or of a file that is none
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} holds no weights of Inception-v3: {text}") from None
    inception = Inception(network)
    return Extractor("Inception-v3", _digest(network.state_dict()), inception)
