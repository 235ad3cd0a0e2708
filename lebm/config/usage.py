"""The first page of help of the verbs that take a recipe; it needs no parser."""

from __future__ import annotations

__all__ = ["DESCRIPTION", "helped", "usage"]

DESCRIPTION = """\
A recipe (-c, by path or by a name that `lebm ls` prints) sets everything; later -c files and flags override
it. A run folder holds its recipe: --resume RUN needs no recipe, and neither does RUN as the first word of a
verb that evaluates."""
_USAGE = {
    "fit": "-c RECIPE [-c OVERLAY ...] [--KEY VALUE ...]\n       lebm fit --resume RUN [--KEY VALUE ...]",
    "validate-recipe": "RECIPE [--time] [--KEY VALUE ...]   (--time: seconds of a step, hours of all)",
    "test": "RUN [--KEY VALUE ...]\n       lebm {verb} -c RECIPE --ckpt_path FILE [--KEY VALUE ...]",
}
_PAGE = """\
often used
  --run_dir DIR                 folder of the run; runs/<recipe> if not given{of_fit}
  --data.path PATH              the data: a folder, files, or a name on the Hub
  --seed_everything N           seed of weights, data order and noise (default 0)
  --latent_dim N                number of latent coordinates
  --trainer.max_epochs N        length of the training; also --trainer.max_steps
  --trainer.accelerator gpu     with --trainer.devices 8 --trainer.strategy ddp for several
  --trainer.precision KIND      number format of the networks, such as bf16-mixed
  --ckpt_path FILE              checkpoint to start from or to evaluate
  --trust PACKAGE               let recipes name classes of a package of your own; repeatable
  --print_config                print the whole recipe with every default, and stop

more
  lebm cat RECIPE               every key of a recipe, to override by --KEY VALUE
  lebm fit --model.help LatentMLE  the arguments of a method
  lebm fit --data.help ImageData   the arguments of a data module
  lebm fit --help all           every flag of Lightning's Trainer too, in 450 lines
"""
_OF_FIT = """
  --resume [RUN]                go on with a run folder, or with that of the recipe
  --checkpoint_every N          steps between checkpoints; every epoch if not given
  -c loggers/wandb              an overlay: here, log to Weights & Biases"""


def usage(verb: str) -> str:
    """How the command line of a verb looks."""
    return f"lebm {verb} {_USAGE.get(verb, _USAGE['test']).format(verb=verb)}"


def helped(verb: str, argv: list[str]) -> bool:
    """Print the first page if the words ask for it by ``--help``.

    For ``--help all`` the parser prints the rest; the word ``all`` is taken out of ``argv``.
    """
    asked = next((number for number, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is None:
        return False
    of_fit = _OF_FIT if verb == "fit" else ""
    print(f"usage: {usage(verb)}\n\n{DESCRIPTION}\n\n{_PAGE.format(of_fit=of_fit)}", end="")
    if argv[asked + 1 : asked + 2] != ["all"]:
        return True
    print()
    del argv[asked + 1]
    return False
