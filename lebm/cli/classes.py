"""Whether data have the classes that a run was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lebm.run.folder import stored_json

if TYPE_CHECKING:
    from lebm.config.run_data import Images, SentenceRows

__all__ = ["other_classes"]

_LISTED = 10


def other_classes(run: Path, images: Images | SentenceRows) -> str:
    """A sentence if images have other classes than the data of a run; empty if they have the same.

    It is empty too if either has no labels, or if the run folder does not say which data it was trained on.

    Args:
        run: a run folder, or a checkpoint in the ``checkpoints`` folder of one.
        images: the images with the names of their classes.
    """
    from lebm.config.run_data import Images

    folder = run if run.is_dir() else run.parent.parent
    described = stored_json(folder, "summary.json").get("data") if folder.is_dir() else None
    trained = _classes(described) if isinstance(described, dict) else []
    if not trained or not isinstance(images, Images) or images.labels is None:
        return ""
    present = images.class_names or [str(label) for label in sorted(set(images.labels))]
    missing = [name for name in trained if name not in present]
    new = [name for name in present if name not in trained]
    if not missing and not new:
        return ""
    parts = [
        f"{words} {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
        for words, names in (("lacks the classes", missing), ("also has the classes", new))
        if names
    ]
    return (
        f"compared with the data of the run, {images.source} {' and '.join(parts)}; the column 'label' has"
        " the numbers of its own classes"
    )


def _classes(described: dict[str, Any]) -> list[str]:
    """Names of the classes in the summary of a run, or their numbers as text."""
    if isinstance(names := described.get("label_names"), dict):
        return [str(name) for name in names.values()]
    counts = described.get("class_counts")
    splits = counts.values() if isinstance(counts, dict) else ()
    return sorted({str(label) for split in splits if isinstance(split, dict) for label in split})
