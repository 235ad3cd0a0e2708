"""Whether data that a flag names exist: asked before torch is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lebm.config.recipe import load_recipe
from lebm.config.recipes import nearest
from lebm.config.request import Request
from lebm.errors import UserError
from lebm.files import HUB_NAME

__all__ = ["check_data", "check_flagged_data"]

_EMBEDDED = Path(__file__).resolve().parents[1] / "data" / "embedded"


def check_data(path: str | None, flag: str = "--data", run: Path | None = None) -> None:
    """Refuse data that do not exist: no file, no folder, not in the package, and no possible name on the Hub.

    Args:
        path: what the flag names, or ``None``.
        flag: for the message.
        run: a run folder. The path of its own data is not checked.

    Raises:
        UserError: naming flag and path.
    """
    if not path or os.path.exists(os.path.expanduser(path)) or path == _own_path(run):
        return
    where = f"{flag} {path!r}: "
    if path.startswith("embedded:"):
        known = sorted({f"embedded:{file.stem.split('_')[0]}" for file in _EMBEDDED.glob("*.parquet")})
        if path not in known:
            raise UserError(f"{where}the package has no such data set; it has {', '.join(known)}")
        return
    if path.startswith(("./", "../", "/", "~")) or not HUB_NAME.fullmatch(path):
        raise UserError(f"{where}no such file or folder{_near(path)}")


def check_flagged_data(request: Request) -> None:
    """Refuse data that a flag of a verb with a recipe names and that do not exist.

    A recipe that names classes of other packages may mean something else by the path of its data, so with
    ``--trust`` the data module decides.

    Raises:
        UserError: naming flag and path.
    """
    path = request.flags.get("data.path")
    if isinstance(path, str) and not request.trust:
        check_data(path, "--data.path")


def _own_path(run: Path | None) -> Any:
    try:
        return load_recipe(run / "config.yaml")["data"]["init_args"]["path"] if run else None
    except (UserError, KeyError, TypeError):
        return None


def _near(path: str) -> str:
    folder = Path(path).expanduser().parent
    names = [str(folder / file.name) for file in folder.iterdir()] if folder.is_dir() else []
    return nearest(path, names)
