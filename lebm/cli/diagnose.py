"""``lebm diagnose RUN``: long chains of a trained model, with findings in words and pictures."""

from pathlib import Path
from typing import Any

from lebm.cli.common import Opened, count, home, run_parser
from lebm.errors import UserError, tell
from lebm.evaluation.settings import CHAINS_PER_IMAGE
from lebm.run.folder import plain, write_json


def diagnose(argv: list[str]) -> None:
    """Run ``lebm diagnose RUN``."""
    what = "Run long prior and posterior chains of a trained model, and report their faults."
    parser = run_parser("diagnose", what, steps=500, out="folder (default: diagnosis in the run folder)")
    parser.flag("--of", "chains to diagnose", choices=("prior", "posterior", "both"), default="both")
    parser.flag("--chains", "number of chains, four per image", type=count, default=32)
    chosen = parser.parse_args(argv)
    if chosen.chains < CHAINS_PER_IMAGE or chosen.steps < 8:
        raise UserError(
            f"too few chains or steps to compare; give at least --chains {CHAINS_PER_IMAGE} and --steps 8"
        )
    folder = chosen.out or home(chosen.run) / "diagnosis"
    if chosen.out is not None and folder.exists() and any(folder.iterdir()) and not chosen.force:
        raise UserError(f"{folder} exists and is not empty; choose another --out or add --force")
    run = Opened(chosen)
    names = ("prior", "posterior") if chosen.of == "both" else (chosen.of,)
    report = {name: _diagnose(name, run, folder) for name in names}
    write_json(folder / "diagnosis.json", plain(report))
    tell(f"lebm: pictures and figures in {folder}")


def _diagnose(name: str, run: Opened, folder: Path) -> dict[str, Any]:
    from lebm.evaluation.chains import NoChainError, long_chains, posterior_chains, prior_chains
    from lebm.plots import draw_chains
    from lebm.samplers.noise import Noise

    chains = run.chosen.chains
    try:
        x = run.rows(chains // CHAINS_PER_IMAGE).all() if name == "posterior" else None
        chains = chains if x is None else len(x) * CHAINS_PER_IMAGE
        noise = Noise.samples(run.chosen.seed, "diagnose", index=range(chains))
        chain = prior_chains(run.model, chains, noise) if x is None else posterior_chains(run.model, x, noise)
    except UserError as error:
        if run.chosen.of != "both" and not isinstance(error, NoChainError):
            raise
        tell(f"{name}: skipped, {error}")
        return {"skipped": str(error)}
    targets = 1 if x is None else len(x)
    trace, metrics = long_chains(chain, noise, run.chosen.steps, targets)
    for finding in metrics["findings"]:
        tell(f"{name}: {finding['kind']}: {finding['text']}")
    draw_chains(folder / f"{name}.png", name, trace, chain.sampler.steps)
    return metrics
