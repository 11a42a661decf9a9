"""The steps of training in one process, which may be one of several."""

import contextlib
import copy
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from .compile import Compiled
from .data import Split
from .loading import fill
from .objective import Objective
from .options import Options
from .processes import Stop
from .progress import Bar
from .run import (
    Log,
    Run,
    claim,
    load_checkpoint,
    locked,
    read_json,
    save_checkpoint,
    write_atomically,
    write_json,
)
from .seeding import seeded
from .sites import first_nonfinite
from .validation import evaluate_objective, sample_picture

LOG_EVERY = 50
Rows = dict[str, Any]


class Batches:
    """Batches of a split by number: number k is the same whoever asks, and whenever.

    Every epoch is one seeded permutation. Of several processes each takes its share of a batch.
    """

    def __init__(
        self, split: Split, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.rank, self.world = rank, world
        self.per_epoch = math.ceil(len(split) / batch_size)
        self.epoch, self.order = -1, torch.empty(0)

    def __call__(self, number: int) -> tuple[tuple[Tensor, ...], float]:
        """Batch `number` and this process's share of it, as a weight on the mean loss."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
            order = torch.randperm(len(self.split), generator=generator)
            self.epoch, self.order = epoch, order.to(self.split.stored.device)
        index = self.order[place * self.batch_size : (place + 1) * self.batch_size]
        if self.world == 1:
            return self.split.batch(index), 1.0
        mine = index.tensor_split(self.world)[self.rank]
        share = len(mine) * self.world / len(index)
        return self.split.batch(mine if len(mine) else index[:1]), share


@dataclass
class Player:
    """An objective with its optimiser, as the loop steps it."""

    name: str
    objective: Objective
    compiled: Compiled
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    run: nn.Module  # `compiled`, or its wrapping over several processes


def train(
    fabric: Any,
    run: Run,
    objectives: dict[str, Objective],
    options: Options,
    resume: bool,
    overwrite: bool,
    on_validation: Callable | None,
    stop: Stop,
) -> None:
    """Train in this process, which may be one of several; the first one writes the run."""
    several = fabric.world_size > 1
    chief = fabric.global_rank == 0
    device = fabric.device
    dataset = run.dataset
    if dataset is None:
        raise ValueError("training needs a data set")
    with seeded(options.seed + fabric.global_rank, device):
        players = _players(fabric, objectives, options, several)
        average = copy.deepcopy(objectives) if options.ema else None
        split = dataset.train.to(device)
        place = (fabric.global_rank, fabric.world_size)
        batches = Batches(split, options.batch_size, options.seed, *place)
        a_turn = sum(player.objective.steps for player in players)
        turns = math.ceil(batches.per_epoch / a_turn)
        total = options.steps or turns * (options.epochs or 0)
        for player in players:
            player.objective.begin(total)
        loop = Loop(fabric, run, players, average, batches, options, total, turns, stop)
        mine = run.path if chief else None  # the directory, where this process writes it
        # Held before anything is cleared: a run that is being written stays as it is.
        with locked(mine) if mine else contextlib.nullcontext():
            if mine:
                claim(mine, resume=resume, overwrite=overwrite)
            step = 0
            if resume and run.path is not None:
                found = load_checkpoint(run.path)
                if found is not None:
                    step = loop.restore(*found)
            if step > total:
                raise ValueError(
                    f"the run in {run.path} has done {step} steps, more than the {total} asked for"
                )
            if mine and step < total:
                _write_start(run, mine)
            elif mine and (mine / "run.json").exists():
                run.info = read_json(mine / "run.json")  # it is complete: left as it is
            log = Log(mine, step if resume else None)
            run.metrics = log.rows
            try:
                if step < total:
                    loop.go(step, log, dataset.validation.to(device), on_validation)
            finally:
                log.close()
    if loop.shown is not run.program:
        run.program.load_state_dict(loop.shown.state_dict())
    run.program.eval()


def _write_start(run: Run, path: Path) -> None:
    text = yaml.safe_dump(run.config, sort_keys=False, default_flow_style=None)
    write_atomically(path / "config.yaml", text.encode())
    write_json(path / "run.json", run.info)


def _players(
    fabric: Any, objectives: dict[str, Objective], options: Options, several: bool
) -> list[Player]:
    players = []
    for name, objective in objectives.items():
        objective.to(fabric.device)
        compiled = Compiled(objective, options.compile)
        parameters = [p for p in objective.player() if p.requires_grad]
        if not parameters:
            raise ValueError(f"the objective {name!r} has no parameters to train")
        family = torch.optim.AdamW if options.weight_decay else torch.optim.Adam
        optimizer = family(
            parameters,
            lr=options.lr,
            betas=objective.betas,
            weight_decay=options.weight_decay,
            fused=fabric.device.type in ("cpu", "cuda"),
        )
        wrapped = fabric.setup_module(compiled) if several else compiled
        players.append(Player(name, objective, compiled, optimizer, parameters, wrapped))
    return players


class Loop:
    """The state of one process's training, and its steps."""

    def __init__(
        self,
        fabric: Any,
        run: Run,
        players: list[Player],
        average: dict[str, Objective] | None,
        batches: Batches,
        options: Options,
        total: int,
        per_epoch: int,
        stop: Stop,
    ) -> None:
        self.fabric, self.run, self.players, self.average = fabric, run, players, average
        self.batches, self.options, self.total, self.per_epoch = batches, options, total, per_epoch
        self.stop = stop
        self.chief = fabric.global_rank == 0
        self.several = fabric.world_size > 1
        self.number = 0  # of the next batch
        # What the next logged row is the mean of: step, player, batch number, terms.
        self.pending: list[tuple[int, Player, int, dict[str, Tensor]]] = []
        self.seconds = 0.0  # of training, over all resumptions
        self.saved = time.monotonic()
        self.shown = run.program  # whose figures and pictures are shown, and which is saved
        self.eager = fabric.device.type == "cpu"  # reading a number costs nothing
        if average is not None:
            self.shown = next(iter(average.values())).program
            pairs = zip(self.shown.parameters(), run.program.parameters(), strict=True)
            self.averaged, self.raw = (list(side) for side in zip(*pairs, strict=True))
            self.validated = {name: Compiled(o, options.compile) for name, o in average.items()}
        else:
            self.validated = {player.name: player.compiled for player in players}

    def go(self, step: int, log: Log, validation: Split, on_validation: Callable | None) -> None:
        began, earlier = time.monotonic(), self.seconds
        first = step
        done = False
        bar = Bar(self.options.progress and self.chief, self.total, step, self.run.info["unit"])
        with bar:
            while step < self.total and not done:
                rate = self.options.learning_rate(step, self.total)
                for player in self.players:
                    for _ in range(player.objective.steps):
                        number = self.number
                        loss, terms = self._update(player, step, rate)
                        figures = {"loss": loss.detach(), **terms}
                        self.pending.append((step, player, number, figures))
                if self.average is not None:
                    self._move_average(step)
                step += 1
                self.seconds = earlier + time.monotonic() - began
                within = step % self.per_epoch  # counted anew, so that no row is of a few steps
                if within % LOG_EVERY == 0 or step in (1, self.total):
                    row = self._row(step, rate)
                    self.pending.clear()
                    if self.chief:
                        log.add(row)
                    bar.update(step, row)
                else:
                    bar.update(step)
                if self.chief and self._falls(self.options.validate_epochs, step):
                    metrics = self._validate(validation, step)
                    log.add(metrics)
                    bar.report(log.rows)
                    done = bool(on_validation and on_validation(self.run, metrics))
                if self.chief and self._falls(self.options.sample_epochs, step, done):
                    self._picture(step)
                done = self._agree(step, done)
        self.run.info["training_seconds"] = round(self.seconds, 2)
        self.run.info["steps"] = step
        rate = (step - first) * self.batches.batch_size / max(time.monotonic() - began, 1e-9)
        self.run.info["examples_per_second"] = round(rate)
        if self.chief and self.run.path is not None:
            write_json(self.run.path / "run.json", self.run.info)

    def _update(self, player: Player, step: int, rate: float) -> tuple[Tensor, dict[str, Tensor]]:
        batch, share = self.batches(self.number)
        self.number += 1
        player.optimizer.zero_grad(set_to_none=True)
        parts = self.options.accumulate
        if parts == 1:
            with self.fabric.autocast():
                loss, terms = player.run(*batch)
            self._check(player, loss, terms, step, batch)
            (loss if share == 1.0 else loss * share).backward()
        else:
            loss, terms = self._accumulate(player, batch, min(parts, len(batch[0])), share, step)
        if self.options.clip_norm:
            torch.nn.utils.clip_grad_norm_(player.parameters, self.options.clip_norm)
        for group in player.optimizer.param_groups:
            group["lr"] = rate * player.objective.lr_factor
        player.optimizer.step()
        return loss, terms

    def _accumulate(
        self, player: Player, batch: tuple[Tensor, ...], parts: int, share: float, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        pieces = list(zip(*(part.tensor_split(parts) for part in batch), strict=True))
        total = batch[0].new_zeros(())
        sums: dict[str, Tensor] = {}
        for index, piece in enumerate(pieces):
            weight = len(piece[0]) / len(batch[0])
            last = index == len(pieces) - 1
            wait = self.several and not last
            quiet = self.fabric.no_backward_sync(player.run) if wait else contextlib.nullcontext()
            with quiet:
                with self.fabric.autocast():
                    loss, terms = player.run(*piece)
                self._check(player, loss, terms, step, piece)
                (loss * (weight * share)).backward()
            total = total + loss.detach() * weight
            for title, value in terms.items():
                sums[title] = sums.get(title, 0.0) + value * weight
        return total, sums

    def _check(
        self, player: Player, loss: Tensor, terms: dict[str, Tensor], step: int, batch: tuple
    ) -> None:
        """Stop at a loss that is not finite. On a GPU, where looking waits, see `_row`."""
        if self.eager and not math.isfinite(loss.item()):
            self._not_finite(player.objective, step, terms, batch)

    def _not_finite(
        self, objective: Objective, step: int, terms: dict[str, Tensor], batch: tuple
    ) -> None:
        parts = {title: float(value) for title, value in terms.items() if title != "loss"}
        bad = [title for title, value in parts.items() if not math.isfinite(value)]
        try:
            site = first_nonfinite(objective.program, batch)
        except (ValueError, RuntimeError, IndexError) as error:  # it breaks on such numbers
            site = f"unknown ({' '.join(str(error).split())[:100]})"
        where = f" at the site {site}" if site else ""
        raise FloatingPointError(
            f"the loss is not finite at step {step + 1}, in the term "
            f"{bad[0] if bad else 'loss'!r}{where}: lower lr, set clip_norm, or check the data"
        )

    def _row(self, step: int, rate: float) -> Rows:
        """The mean of the collected terms; on a GPU this is where they are first looked at."""
        columns: dict[str, list[Tensor]] = {}
        adversaries = len(self.players) > 1
        for _, player, _, terms in self.pending:
            for title, value in terms.items():
                columns.setdefault(f"{player.name}/{title}" if adversaries else title, []).append(
                    value
                )
        means = {title: torch.stack(values).mean().item() for title, values in columns.items()}
        if not self.eager and not all(map(math.isfinite, means.values())):
            for at, player, number, terms in self.pending:
                if not math.isfinite(terms["loss"].item()):
                    self._not_finite(player.objective, at, terms, self.batches(number)[0])
        if self.several:
            shares = torch.tensor(list(means.values()), device=self.fabric.device)
            shares = self.fabric.all_reduce(shares, reduce_op="mean")
            means = dict(zip(means, shares.tolist(), strict=True))
        if adversaries:
            losses = [means[f"{player.name}/loss"] for player in self.players]
            means = {"loss": sum(losses), **means}
        place = {"step": step, "epoch": step / self.per_epoch, "seconds": self.seconds}
        return {**place, "split": "train", **means, "lr": rate}

    def _move_average(self, step: int) -> None:
        # The decay grows with the step at first, so that the start is soon forgotten.
        decay = min(self.options.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, self.raw, 1 - decay)

    def _copy_buffers(self) -> None:
        if self.average is None:
            return
        for name, objective in self.average.items():
            source = next(p.objective for p in self.players if p.name == name)
            for mine, theirs in zip(objective.buffers(), source.buffers(), strict=True):
                mine.copy_(theirs)

    def _validate(self, split: Split, step: int) -> Rows:
        self._copy_buffers()
        means: dict[str, float] = {}
        several = len(self.validated) > 1
        for name, compiled in self.validated.items():
            found = evaluate_objective(compiled, split, self.options.seed, self.fabric.autocast)
            prefix = f"{name}/" if several else ""
            means |= {prefix + title: value for title, value in found.items()}
        if several:
            means = {"loss": sum(means[f"{name}/loss"] for name in self.validated), **means}
        place = {"step": step, "epoch": step / self.per_epoch, "seconds": self.seconds}
        return {**place, "split": "validation", **means}

    def _falls(self, every: int, step: int, done: bool = False) -> bool:
        """Whether what is done every so many epochs is due; at the end it is, unless that is 0."""
        if every == 0:
            return False
        epoch, left = divmod(step, self.per_epoch)
        return step == self.total or done or (left == 0 and epoch % every == 0)

    def _picture(self, step: int) -> None:
        path = self.run.path
        if path is None:
            return
        picture = sample_picture(self.shown, self.run, seed=self.options.seed)
        if picture is not None:
            write_atomically(path / "samples" / f"step_{step:09d}.png", picture)

    def _agree(self, step: int, done: bool) -> bool:
        """Whether to end, by the word of all processes; and a checkpoint where one is due."""
        due = time.monotonic() - self.saved >= self.options.checkpoint_seconds
        if self.several:
            word = torch.tensor([float(done), float(due and self.chief), float(self.stop.signal)])
            word = self.fabric.all_reduce(word.to(self.fabric.device), reduce_op="max")
            done, due, self.stop.signal = bool(word[0]), bool(word[1]), int(word[2])
        done = done or bool(self.stop.signal)
        if self.run.path is not None and (due or done or step == self.total):
            self._save(step)
            self.saved = time.monotonic()
        return done

    # Checkpoints

    def _save(self, step: int) -> None:
        generators = self._generators()
        if not self.chief or self.run.path is None:
            return
        weights = self.run.program.state_dict()
        pending = []
        for at, player, number, terms in self.pending:
            figures = {title: float(value) for title, value in terms.items()}
            pending.append((at, self.players.index(player), number, figures))
        state = {
            "step": step,
            "number": self.number,
            "seconds": self.seconds,
            "generators": generators,
            "optimizers": [player.optimizer.state_dict() for player in self.players],
            "objectives": [_own_state(player.objective) for player in self.players],
            "pending": pending,
            "raw": None,
        }
        if self.average is not None:
            self._copy_buffers()
            state["raw"] = weights
            weights = self.shown.state_dict()
        save_checkpoint(self.run.path, step, weights, state)

    def restore(self, weights: dict[str, Tensor], state: dict[str, Any]) -> int:
        """Put everything back as `_save` found it; returns the step."""
        path = self.run.path or Path()
        if missing := {"optimizers", "generators", "objectives", "raw", "number"} - state.keys():
            raise ValueError(f"the checkpoint in {path} has no {sorted(missing)[0]}: train again")
        if len(state["optimizers"]) != len(self.players):
            raise ValueError(f"the run in {path} was trained with other objectives")
        if len(state["generators"]) != self.fabric.world_size:
            raise ValueError(
                f"the run in {path} was trained on {len(state['generators'])} processes; resume it "
                "on as many"
            )
        fill(self.run.program, state["raw"] or weights, path)
        if self.average is not None:
            fill(self.shown, weights, path)
        for player, optimizer, own in zip(
            self.players, state["optimizers"], state["objectives"], strict=True
        ):
            player.optimizer.load_state_dict(optimizer)
            player.objective.load_state_dict(own, strict=False)
        mine = state["generators"][self.fabric.global_rank]
        torch.set_rng_state(mine["torch"])
        if mine["cuda"] is not None:
            torch.cuda.set_rng_state(mine["cuda"], self.fabric.device)
        version, internal, gauss = mine["python"]
        random.setstate((version, tuple(internal), gauss))
        self.number, self.seconds = state["number"], state["seconds"]
        place = self.fabric.device
        self.pending = []
        for at, index, number, terms in state.get("pending", []):
            figures = {title: torch.tensor(v, device=place) for title, v in terms.items()}
            self.pending.append((at, self.players[index], number, figures))
        return int(state["step"])

    def _generators(self) -> list[dict[str, Any]]:
        cuda = self.fabric.device.type == "cuda"
        mine = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.fabric.device) if cuda else None,
            "python": random.getstate(),
        }
        if not self.several:
            return [mine]
        gathered: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(gathered, mine)
        return gathered


def _own_state(objective: Objective) -> dict[str, Tensor]:
    """What an objective remembers besides its program."""
    state = objective.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("program.")}
