"""Held-out digits of MNIST: train, score and write results/anomaly/*.json and their tables.

    python scripts/anomaly_table.py run FOLDER       # every cell, eight CPU minutes each
    python scripts/anomaly_table.py run FOLDER --only VAE --digits 2,3 --seed 1
    python scripts/anomaly_table.py write            # the tables only

A cell is one model without one digit, by `lebm sweep`. Done cells are skipped, interrupted ones go on. The
settings were chosen with the digits 2 and 3 held out; the table reports 1, 4, 5, 7 and 9 once, from the last
checkpoint. All scores of a cell come from one pass over the test images."""

from __future__ import annotations

from statistics import mean

from equal_time import DIGITS, PAPERS, below, minutes
from results_page import RESULTS, cells, figures, folded, grid, publish, run_or_write, spread, stored, sweep

HELD_OUT = ["--data.init_args.anomaly_split", "lebm", "--data.init_args.validation_size", "0"]
# As long as LatentMLE in CPU time; the learning rate falls to the same share as in the recipe.
LONGER = ["--trainer.max_epochs", "30", "--model.init_args.optimizer.init_args.lr_decay", "0.883"]
CONVOLUTIONS = [
    "--trainer.max_epochs",
    "28",
    "--model.init_args.optimizer.init_args.lr_decay",
    "0.875",
    "--model.init_args.likelihood.init_args.generator",
    "{class_path: ConvGenerator, init_args: {latent_dim: 16, out_shape: [1, 28, 28], channels: [64, 32],"
    " start: 7}}",
]
EVERY_EPOCH = (
    "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_top_k: -1,"
    " filename: 'epoch={epoch:02d}', auto_insert_metric_name: false}}"
)
# folder of the cells, recipe, what differs from it
PLANS: dict[str, tuple[str, str, list[str]]] = {
    "LatentMLE": ("anomaly", "latent_mle/mnist_anomaly", []),
    "VAE": ("anomaly", "baselines/mnist_vae", ["--latent_dim", "16", *LONGER]),
    "LatentMLE-conv": ("anomaly/conv", "latent_mle/mnist_anomaly_conv_normal_base", []),
    "VAE-conv": ("anomaly/conv", "baselines/mnist_vae", ["--latent_dim", "16", *CONVOLUTIONS]),
}
SCORES = {
    "reconstruction": "reconstruction alone",
    "prior": "-log p(z) alone",
    "log_joint": "-log p(x, z)",
    "combined": "combined",
}


def words(method: str, folder: str, digits: str, seed: int) -> list[str]:
    """What a cell gives to `lebm sweep`."""
    _, recipe, changes = PLANS[method]
    chosen = ["-c", recipe, "--runs", f"runs/anomaly/{method}-{seed}", "--seed_everything", str(seed)]
    chosen += ["--data.init_args.path", folder, *HELD_OUT, *changes, "--trainer.enable_progress_bar", "false"]
    return [*chosen, "--over", "held_out_label", digits, "--suite", "anomaly"]


def table() -> str:
    """AUPRC by method and score, the mean of the seeds with all digits; the highest per digit is bold."""
    digits, rows, averages, done = DIGITS.split(","), [], [], []
    for method, (folder, recipe, _) in PLANS.items():
        names = [method.removesuffix("-conv"), "convolutional" if "-conv" in method else "fully connected"]
        folders = [folder, *(f"{folder}/{f.name}" for f in sorted(RESULTS.glob(f"{folder}/seed-*")))]
        found = [cells(folder, recipe, "held_out_label") for folder in folders]
        seeds = [own for own in found if own.keys() >= set(digits)]
        measured = [own[digit] for own in seeds for digit in digits]
        done += measured
        values = [[figures(own[digit]["evaluation"]) for own in seeds] for digit in digits]
        for score, title in SCORES.items() if seeds else ():
            known = [[value[f"auprc/{score}"]["value"] for value in by_seed] for by_seed in values]
            shown = (spread(by_seed, "{:.3f}", mean) for by_seed in known)
            rows.append([*names, title, len(seeds), minutes(measured), *shown])
            averages.append([mean(by_seed) for by_seed in known])
    best = [max(column) for column in zip(*averages, strict=True)]
    for row, average in zip(rows, averages, strict=True):
        row[5:] = [f"**{v}**" if a == b else v for v, a, b in zip(row[5:], average, best, strict=True)]
    rows += [
        [f"paper: {paper}", "not stated", "", "", "not stated", *printed] for paper, printed in PAPERS.items()
    ]
    head = ["method", "generator", "score", "seeds", "CPU min per model", *digits]
    return "\n\n".join([grid(head, rows), *below(done, "python scripts/anomaly_table.py run FOLDER")])


def choice() -> str:
    """How the model and the rule of the score were chosen, with two other digits held out."""
    content, rows = stored("anomaly/choice"), []
    for row in content["rows"]:
        recipe = row.get("recipe", "")
        model = "VAE, N(0, I)" if "vae" in recipe else "learned prior"
        model += " in seven stages" if "multistage" in recipe else ""
        model += ", convolutional generator" if "generator" in row else ""
        model += f", {row['epochs']} epochs" if "epochs" in row else ""
        values = (f"{row[score]:.3f}" if score in row else "not computed" for score in SCORES)
        rows.append([row["latents"], row["sigma"], model, row["digit"], *values])
    models = grid(["latents", "σ", "model", "digit", *SCORES.values()], rows)
    others = []
    for generator in ("fully connected", "convolutional"):
        rules = content["other_rules"][generator].items()
        lines = [[rule, *(f"{value:.3f}" for value in values)] for rule, values in rules]
        others.append(grid([f"another rule, {generator} generator", "digit 2", "digit 3"], lines))
    return "\n\n".join([models, *others, folded([content["command"]])])


def protocols() -> str:
    """One training and one score under several protocols; scripts/anomaly_protocols.py measures it."""
    found, rows = stored("anomaly/protocols"), []
    for model in dict.fromkeys(entry["model"] for entry in found):
        own = [entry for entry in found if entry["model"] == model]
        for score, by_protocol in own[0]["auprc"].items():
            for protocol in by_protocol:
                values = [entry["auprc"][score][protocol] for entry in own]
                honest = [entry["auprc"][score]["honest"] for entry in own]
                moved = f"{mean(values) - mean(honest):+.3f}" if protocol != "honest" else ""
                rows.append([model, score, protocol, *(f"{value:.3f}" for value in values), moved])
    digits = dict.fromkeys(entry["held_out_label"] for entry in found)
    table = grid(["model", "score", "protocol", *digits, "mean change"], rows)
    flags = "python scripts/anomaly_table.py run FOLDER --seed 2 --every-epoch --only"
    command = "python scripts/anomaly_protocols.py run runs/anomaly/{LatentMLE,VAE}-2/held_out_label-*"
    return "\n\n".join([table, folded([f"{flags} LatentMLE", f"{flags} VAE", command])])


BLOCKS = {"anomaly": table, "anomaly_choice": choice, "anomaly_protocols": protocols}


def main() -> None:
    parser, runner = run_or_write(__doc__)
    runner.add_argument("folder", help="of MNIST in the layout of the Hub, or its name there")
    runner.add_argument("--only", choices=PLANS)
    runner.add_argument("--digits", default=DIGITS)
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--every-epoch", action="store_true", help="keep the weights of every epoch too")
    chosen = parser.parse_args()
    if chosen.verb == "run":
        methods = [chosen.only] if chosen.only else PLANS
        for name in methods:
            target = PLANS[name][0] + (f"/seed-{chosen.seed}" if chosen.seed else "")
            kept = [f"--trainer.callbacks+={EVERY_EPOCH}"] if chosen.every_epoch else []
            sweep(target, {name: words(name, chosen.folder, chosen.digits, chosen.seed) + kept})
    publish(BLOCKS)


if __name__ == "__main__":
    main()
