"""Model cards: the model, its origin, its measurements and its limits."""

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lebm import checkpoint
from lebm.errors import UserError
from lebm.evaluation.record import read_evaluation
from lebm.files import sha256
from lebm.run.folder import spent_minutes, stored_json
from lebm.run.provenance import without_paths

__all__ = ["model_card"]

_HERE = Path(__file__).parent
_ELSEWHERE = ("ood", "chains")  # suites of other data or chains, not in the head
_ARGUMENTS = ("low", "high", "level", "n")
_RANKINGS = ("auroc", "auprc", "fpr_at_95")  # in the card by the score of the method only


def model_card(file: Path, run: Path, name: str, licence: str | None = None) -> str:
    """Return the card of a model file, in Markdown with a head in the schema of the Hub.

    Nothing is measured here. The values come from ``evaluation.json`` of the run.

    Args:
        file: the model file.
        run: the run folder that the file was exported from.
        name: the name to open it by, such as ``pretrained/latent_mle-mnist`` or ``hub:ada/digits``.
        licence: licence identifier of the weights, such as ``apache-2.0``; omitted if ``None``.

    Raises:
        UserError: if the run was evaluated with other weights, or a file is damaged.
    """
    content = checkpoint.read(file)
    facts = content["facts"]
    stored, weights = run / "evaluation.json", facts.get("weights")
    found = read_evaluation(stored) if stored.is_file() else {"suites": {}}
    if stored.is_file() and found["checkpoint_sha256"] != facts.get("checkpoint_sha256"):
        raise UserError(f"{stored}: measured on another checkpoint of the run; run lebm evaluate {run} again")
    if found.get("loaded_weights", weights) != weights:
        raise UserError(f"{stored}: measured with the {found['loaded_weights']} weights, not these")
    suites = found["suites"]
    figures = [
        (suite, figure)
        for suite, part in suites.items()
        for figure in part["figures"]
        if figure["value"] is not None
        and (figure["name"].endswith("/anomaly_score") or figure["name"].partition("/")[0] not in _RANKINGS)
    ]
    path = str((facts.get("data") or {}).get("path") or "not recorded")
    sources = yaml.safe_load(_HERE.joinpath("sources.yaml").read_text(encoding="utf-8"))
    source = sources.get(re.split("[:/]", path)[-1].lower(), {"name": path, "licence": "not recorded"})
    hub = source.get("hub")
    method = str(content["hyper_parameters"]["class_path"]).rpartition(".")[2]
    kind = (facts.get("observations") or {}).get("kind", "rows")
    task = {"images": "unconditional-image-generation", "sentences": "text-generation"}.get(kind)
    head = ModelCardData(
        library_name="lebm",
        license=licence,
        datasets=[hub] if hub else None,
        tags=["energy-based-model", "latent-variable-model", method],
        pipeline_tag=task,
        model_name=name.rpartition("/")[2].partition("@")[0],
        eval_results=[
            EvalResult(
                task_type=task or "other",
                dataset_type=hub or "other",
                dataset_name=source["name"],
                dataset_split=figure["split"],
                metric_type=figure["name"],
                metric_name=figure["name"],
                metric_value=figure["value"],
                metric_args={key: figure[key] for key in _ARGUMENTS if figure[key] is not None},
            )
            for suite, figure in figures
            if suite not in _ELSEWHERE
        ],
    )
    commands = {without_paths(part["origin"].get("command")) for part in suites.values()}
    known: dict[str, Any] = {
        **{"head": head, "name": name, "method": method, "kind": kind, "source": source, "facts": facts},
        **{"suites": suites, "figures": figures, "commands": sorted(filter(None, commands))},
        **{"summary": stored_json(run, "summary.json"), "minutes": spent_minutes, "digest": sha256(file)},
        "weights": sum(value.numel() for value in content["state_dict"].values() if hasattr(value, "numel")),
    }
    card = ModelCard.from_template(head, template_path=str(_HERE / "card.md"), **known)
    return str(card).rstrip() + "\n"
