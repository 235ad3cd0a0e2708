"""Models on the Hugging Face Hub: ``hub:USER/NAME`` and ``hub:USER/NAME@REVISION``.

Only three files travel: weights as safetensors, the plain description as ``config.json``, and the card. The
host is that of ``huggingface_hub``, or the one that ``HF_ENDPOINT`` names. A token is taken from where
``hf auth login`` or ``HF_TOKEN`` put it; lebm stores none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lebm.errors import UserError

__all__ = ["CARD", "CONFIG", "MODEL", "PREFIX", "fetch", "need_token", "parsed", "push"]

PREFIX = "hub:"
"""How the name of a model on the Hub begins, wherever a run can be named."""
MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)  # it becomes a path in the cache


def parsed(name: str) -> tuple[str, str | None]:
    """``USER/NAME`` and the revision of a name, ``None`` for the newest one.

    Raises:
        UserError: if it is not such a name.

    Example:
        >>> from lebm.hub import parsed
        >>> parsed("hub:ada/digits@v1")
        ('ada/digits', 'v1')
    """
    repository, pinned, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repository) or (pinned and not _REVISION.fullmatch(revision)):
        raise UserError(f"{name}: a model on the Hub is called hub:USER/NAME or hub:USER/NAME@REVISION")
    return repository, revision or None


def fetch(name: str) -> Path:
    """The model file of a name, downloaded unless this machine has that revision already.

    Raises:
        UserError: in one line, if there is no such model or revision, or it cannot be reached.
    """
    repository, revision = parsed(name)
    import huggingface_hub

    with _one_line(name):
        return Path(huggingface_hub.hf_hub_download(repository, MODEL, revision=revision))


def need_token(name: str) -> None:
    """Refuse to send a model to the Hub without a token; the network is not asked.

    Raises:
        UserError: with the ways to give a token.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(f"{name}: a push needs a token; log in with `hf auth login`, or set HF_TOKEN")


def push(name: str, folder: Path, private: bool = False) -> str:
    """Upload the model, its description and its card, in one commit. The repository is made as needed.

    Args:
        name: ``USER/NAME``, with or without ``hub:`` before it.
        folder: holds the three files. Nothing else in it is uploaded.
        private: make the repository private, if it is new.

    Returns:
        The address of the commit.

    Raises:
        UserError: in one line, if there is no token, or the Hub refuses or cannot be reached.
    """
    repository, revision = parsed(name)
    if revision is not None:
        raise UserError(f"{name}: a revision is made by the push, so leave @{revision} out")
    need_token(name)
    from huggingface_hub import HfApi

    with _one_line(name):
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[MODEL, CONFIG, CARD],
            commit_message="Upload a model with lebm",
        )
    return str(done.commit_url)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Report any failure of the library in one line that names the model; it never holds the token."""
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"{name} at {constants.ENDPOINT}: {said}") from error
