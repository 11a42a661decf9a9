r"""The Ising model below, at and above its critical temperature.

Spins s_i in {-1, +1} on a square lattice gain energy from neighbours that agree, and heat disturbs
them. A Markov random field, with one potential an edge:

    E(s) = - sum_{i, j neighbours} s_i s_j        P(s) = 1/Z exp(-E(s) / T)

On the infinite lattice there is order below the critical temperature and none above it, with

    T_c = 2 / log(1 + sqrt 2) = 2.269...
    m   = (1 - sinh(2/T)^-4)^(1/8)  for T < T_c, else 0                   (Onsager, Yang 1952)
    u   = -coth(2/T) (1 + 2/pi (2 tanh(2/T)^2 - 1) K(k)),  k = 2 sinh(2/T) / cosh(2/T)^2   (1944)

for the magnetisation and the energy per spin, K being the complete elliptic integral. Checkerboard
Gibbs sampling shows all three on a torus of 128 x 128: given the white squares, the black ones are
independent, so a whole colour is drawn at once from

    p(s_i = +1 | neighbours) = 1 / (1 + exp(-2 sum_j s_j / T))

All start with every spin up. At T_c fluctuations of all sizes take very many sweeps to forget that,
and a finite lattice keeps a magnetisation of the order of its side to the power -1/8, here 0.55.

On 4 x 4 spins with a free boundary Z is summed over all 65,536 states, and found by a clique tree.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ellipk, logsumexp

from graphs import boltzmann, energy, partition_function

CRITICAL = 2 / np.log(1 + np.sqrt(2))
TEMPERATURES = {"below": 2.0, "at": CRITICAL, "above": 3.0}
SIDE, BURN_IN, SWEEPS, BLOCKS = 128, 3000, 5000, 20
SMALL = 4
INK, COLOURS = "#30343b", ("#0072B2", "#7A3E9D", "#CC3311")


def onsager(temperature):
    """The magnetisation and the energy per spin of the infinite lattice."""
    b = 2 / temperature
    m = (1 - np.sinh(b) ** -4) ** 0.125 if temperature < CRITICAL else 0.0
    if np.isclose(temperature, CRITICAL, rtol=1e-12):
        return m, -np.sqrt(2)  # K is infinite, but what multiplies it is zero
    k = 2 * np.sinh(b) / np.cosh(b) ** 2
    return m, -(1 + 2 / np.pi * (2 * np.tanh(b) ** 2 - 1) * ellipk(k**2)) / np.tanh(b)


def neighbours(other, shift):
    """Sums over the four neighbours of one colour, of which row r has the columns 2c + (r odd).

    Of the other colour the same row's column c is beside it, and c + 1 or c - 1 by the row's
    parity, which `shift` says for the even rows.
    """
    total = other + np.roll(other, 1, 1) + np.roll(other, -1, 1)
    total[:, ::2] += np.roll(other[:, ::2], shift, 2)
    total[:, 1::2] += np.roll(other[:, 1::2], -shift, 2)
    return total


def sample(temperatures, rng):
    """Fields (T, SIDE, SIDE), and magnetisation and energy per spin after each sweep, (sweeps, T).

    One lattice a temperature, all in one array; the colours lie apart, (T, SIDE, SIDE / 2) each.
    """
    count = len(temperatures)
    black, white = np.ones((2, count, SIDE, SIDE // 2), np.int8)
    sums = np.arange(-4, 5)
    up = 1 / (1 + np.exp(-2 * sums / np.array(temperatures)[:, None]))  # (T, 9)
    up = up.astype(np.float32).ravel()
    row = (9 * np.arange(count, dtype=np.int16) + 4)[:, None, None]  # where each begins in `up`
    found = np.empty((2, SWEEPS, count))
    for sweep in range(BURN_IN + SWEEPS):
        for colour, other, shift in ((black, white, 1), (white, black, -1)):
            total = neighbours(other, shift)
            uniform = rng.random(colour.shape, np.float32)
            np.subtract(2 * (uniform < up[row + total]).view(np.int8), 1, out=colour)
        if sweep >= BURN_IN:
            magnetisation = (black.mean((1, 2)) + white.mean((1, 2))) / 2
            # Each edge has one white end; there are two edges a spin, and half the spins are white.
            energy_per_spin = -(white * total).mean((1, 2)) / 2
            found[:, sweep - BURN_IN] = magnetisation, energy_per_spin
    fields = np.empty((count, SIDE, SIDE), np.int8)
    fields[:, ::2, ::2], fields[:, 1::2, 1::2] = black[:, ::2], black[:, 1::2]
    fields[:, ::2, 1::2], fields[:, 1::2, ::2] = white[:, ::2], white[:, 1::2]
    return fields, *found


def with_error(series):
    """Means over time and their standard errors, from blocks, (sweeps, T) -> (T,), (T,)."""
    means = series.reshape(BLOCKS, -1, series.shape[1]).mean(1)
    return means.mean(0), means.std(0, ddof=1) / np.sqrt(BLOCKS)


def small_lattice():
    """E as one table an edge, over spins that are named (row, column); state 1 is up."""
    agree = np.array([[-1.0, 1.0], [1.0, -1.0]])
    cells = range(SMALL)
    down = [(((r, c), (r + 1, c)), agree) for r in cells[:-1] for c in cells]
    return down + [(((r, c), (r, c + 1)), agree) for r in cells for c in cells[:-1]]


def draw(out, fields, measured):
    figure = Figure(figsize=(12, 7.8), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=[1.35, 1])
    for i, (name, temperature) in enumerate(TEMPERATURES.items()):
        axes = figure.add_subplot(grid[0, 2 * i : 2 * i + 2])
        axes.imshow(fields[i], cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{name} $T_c$: T = {temperature:.3f}", color=COLOURS[i])
    line = np.linspace(1.2, 3.6, 481)
    exact = np.array([onsager(t) for t in line]).T
    for k, name in enumerate(("magnetisation |m| per spin", "energy u per spin")):
        axes = figure.add_subplot(grid[1, 3 * k : 3 * k + 3])
        axes.plot(line, exact[k], color=INK, lw=1.5, label="Onsager, infinite lattice")
        axes.axvline(CRITICAL, color="0.75", lw=1, zorder=0)
        for i, temperature in enumerate(TEMPERATURES.values()):
            mean, error = measured[k][0][i], measured[k][1][i]
            axes.errorbar(temperature, mean, 2 * error, fmt="o", color=COLOURS[i], ms=7, capsize=3)
        axes.plot([], [], "o", color=INK, label="sampled, ± 2 errors")
        axes.set(xlabel="temperature T", ylabel=name)
        axes.legend(frameon=False, loc="center right" if k == 0 else "lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=110)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("ising_temperatures.png"))
    out = parser.parse_args(argv).out
    figures = {}

    fields, magnetisation, energies = sample([*TEMPERATURES.values()], np.random.default_rng(0))
    measured = with_error(np.abs(magnetisation)), with_error(energies)
    print(f"{SIDE} x {SIDE} spins on a torus, {SWEEPS:,} sweeps after {BURN_IN:,}")
    print("              T        |m|             Onsager   u                 Onsager")
    for i, (name, temperature) in enumerate(TEMPERATURES.items()):
        exact = onsager(temperature)
        (m, m_error), (u, u_error) = ((mean[i], error[i]) for mean, error in measured)
        print(
            f"{name + ' T_c:':11} {temperature:.4f}   {m:.4f} ± {m_error:.4f}  {exact[0]:.4f}   "
            f"{u:.4f} ± {u_error:.4f}  {exact[1]:.4f}"
        )
        figures |= {
            f"{name}: |m|": m, f"{name}: |m|, exact": exact[0],
            f"{name}: u": u, f"{name}: u, exact": exact[1], f"{name}: u, error": u_error,
        }  # fmt: skip

    lattice = small_lattice()
    states = np.indices((2,) * SMALL**2, np.int8).reshape(SMALL**2, -1).T.astype(np.int64)
    model = boltzmann(lattice)
    every = energy(model, states)
    print(f"\n{SMALL} x {SMALL} spins with a free boundary, log Z in nats")
    print("              enumeration       clique tree       Bethe")
    for name, temperature in TEMPERATURES.items():
        warm = boltzmann(lattice, temperature)
        total = logsumexp(-every / temperature)
        exact, bethe = partition_function(warm, "exact"), partition_function(warm, "bethe")
        print(f"{name + ' T_c:':13} {total:.12f}   {exact.log_z:.12f}   {bethe.log_z:.4f}")
        figures |= {
            f"{name}: log Z": exact.log_z, f"{name}: log Z by enumeration": total,
            f"{name}: log Z by Bethe": bethe.log_z,
        }  # fmt: skip
    print(f"{len(states):,} states; the clique tree: {exact.cost}")
    draw(out, fields, measured)
    print(f"picture: {out}")
    return figures


if __name__ == "__main__":
    main()
