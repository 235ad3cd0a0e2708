"""The first page of help of the verbs that take a recipe; it needs no parser."""

from __future__ import annotations

__all__ = ["DESCRIPTION", "USAGE", "helped"]

DESCRIPTION = """\
A recipe (-c, by path or by a name that `lebm ls` prints) sets everything; later -c files and flags override
it. A run folder holds its recipe: --resume RUN needs no recipe, and neither does RUN as the first word of a
verb that evaluates."""
USAGE = {
    "fit": (
        "lebm fit -c RECIPE [-c OVERLAY ...] [--KEY VALUE ...]\n       lebm fit --resume RUN [--KEY VALUE"
        " ...]"
    ),
    "validate-recipe": (
        "lebm validate-recipe RECIPE [--KEY VALUE ...]\n       lebm validate-recipe RECIPE --time [--KEY"
        " VALUE ...]   takes three steps: seconds of one, hours of all"
    ),
    "test": (
        "lebm {verb} RUN [--KEY VALUE ...]\n       lebm {verb} -c RECIPE --ckpt_path FILE [--KEY VALUE ...]"
    ),
}
_ROWS = {
    "--run_dir DIR": "folder of the run; runs/<recipe> if not given",
    "--resume [RUN]": "go on with a run folder, or with that of the recipe",
    "--data.path PATH": "the data: a folder, files, or a name on the Hub",
    "--seed_everything N": "seed of weights, data order and noise (default 0)",
    "--latent_dim N": "number of latent coordinates",
    "--trainer.max_epochs N": "length of the training; also --trainer.max_steps",
    "--trainer.accelerator gpu": "with --trainer.devices 8 --trainer.strategy ddp for several",
    "--trainer.precision bf16-mixed": "number format of the networks",
    "--checkpoint_every N": "steps between checkpoints; every epoch if not given",
    "--ckpt_path FILE": "checkpoint to start from or to evaluate",
    "-c loggers/wandb": "an overlay: here, log to Weights & Biases",
    "--trust PACKAGE": "let recipes name classes of a package of your own; repeatable",
    "--print_config": "print the whole recipe with every default, and stop",
}
_TRAINING = ("--resume [RUN]", "--checkpoint_every N", "-c loggers/wandb")
_MORE = {
    "lebm cat RECIPE": "every key of a recipe, to override by --KEY VALUE",
    "lebm {verb} --model.help LatentMLE": "the arguments of a method",
    "lebm {verb} --data.help ImageData": "the arguments of a data module",
    "lebm {verb} --help all": "every flag of Lightning's Trainer too, in 450 lines",
}


def helped(verb: str, argv: list[str]) -> bool:
    """Print the first page if the words ask for it by ``--help``; ``--help all`` is left to the parser.

    The word ``all`` is taken out of ``argv``.
    """
    asked = next((number for number, word in enumerate(argv) if word in ("-h", "--help")), None)
    if asked is None:
        return False
    if argv[asked + 1 : asked + 2] == ["all"]:
        del argv[asked + 1]
        return False
    print(_first_page(verb))
    return True


def _first_page(verb: str) -> str:
    """Usage, the flags that most people need, and the commands that list the others."""
    usage = USAGE.get(verb, USAGE["test"]).format(verb=verb)
    rows = {flag: text for flag, text in _ROWS.items() if verb == "fit" or flag not in _TRAINING}
    parts = [f"usage: {usage}", DESCRIPTION, _table("often used", rows)]
    more = {command.format(verb=verb): text for command, text in _MORE.items()}
    return "\n\n".join([*parts, _table("more", more)])


def _table(title: str, rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())])
