"""The command `ppgen`: train, evaluate, sample and report on any program; question graphs.

Only what a subcommand needs is imported, so that `ppgen --help` answers at once.
"""

import os
import sys
from collections.abc import Callable

from .names import near

COMMANDS = {
    "train": "train a model on a data set; writes a run directory",
    "evaluate": "test likelihood of a run, with its kind, and scores of its samples",
    "compare": "likelihoods and scores of runs side by side, ranked where that means something",
    "sample": "draw from a run, to a picture or a .npz file",
    "report": "write a run's report.html, one self-contained page",
    "models": "list the models, or show one with its options",
    "data": "list the data sources, or look at one",
    "graph": "look at Bayesian networks, question them exactly, learn them from rows",
}
HELP = """usage: ppgen COMMAND [options]

Every generative model as one Pyro program: train, evaluate, sample, report.

commands:
{commands}

start here:
  ppgen train --model VAE --model.latent_dim 2 --data mnist --binarize dynamic --out runs/vae
  ppgen evaluate runs/vae --particles 100
  ppgen report runs/vae
  ppgen graph query alarm --evidence HISTORY=TRUE CVP=LOW

`ppgen COMMAND --help` explains a command; `ppgen train --model NAME --help` also its model.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 (the run failed) or 2 (bad input)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        status = _main(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {k:10s}{v}" for k, v in COMMANDS.items())))
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"ppgen {version('ppgen')}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        return _fail("ppgen", f"unknown command {name!r}{near(name, COMMANDS)}", 2)
    if name == "graph":  # it does without PyTorch, which takes seconds to import
        from . import graph_commands as commands
    elif name == "sample":
        from . import sample_command as commands  # type: ignore[no-redef]
    elif name == "evaluate":
        from . import evaluate_command as commands  # type: ignore[no-redef]
    elif name == "compare":
        from . import compare_command as commands  # type: ignore[no-redef]
    else:
        from . import commands  # type: ignore[no-redef]

    run: Callable[[list[str]], None] = getattr(commands, name)
    if os.environ.get("PPGEN_DEBUG"):  # full tracebacks, for whoever develops a model
        run(rest)
        return 0
    import warnings

    # A warning is one line for a person; where in the code it arose is not their concern.
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    left = "the run is saved; --resume goes on"
    if name == "graph":
        left = "nothing was written; the same command starts over"
    try:
        run(rest)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as stop:  # it has words where the work stopped in good order
        print(f"interrupted{f': {left}' if stop.args else ''}", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if stop.code == 143:
            print(f"terminated: {left}", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 1
    except (FloatingPointError, OSError, RuntimeError) as error:
        known = isinstance(
            error, (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError)
        )
        return _fail(f"ppgen {name}", error, 2 if known else 1)
    except (ValueError, TypeError, MemoryError) as error:
        return _fail(f"ppgen {name}", error, 2)
    return 0


def _fail(who: str, error: object, status: int) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"{who}: error: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
