"""Models on the Hugging Face Hub: ``hub:USER/NAME`` and ``hub:USER/NAME@REVISION``.

A model has three files: weights as safetensors, the plain description ``config.json``, and the card. The host
is the default of ``huggingface_hub`` or ``HF_ENDPOINT``. The token comes from ``hf auth login`` or
``HF_TOKEN``; lebm stores no token.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lebm import pretrained
from lebm.errors import UserError

PREFIX = "hub:"
"""Prefix of a model on the Hub, wherever a run can be named."""
MODEL, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
_REVISION = re.compile(r"(?!.*\.\.)\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)  # used as a path in the cache


def parsed(name: str) -> tuple[str, str | None]:
    """Return ``USER/NAME`` and the revision of a name, ``None`` for the newest revision.

    Raises:
        UserError: if the name has another form.

    Example:
        >>> from lebm.hub import parsed
        >>> parsed("hub:ada/digits@v1")
        ('ada/digits', 'v1')
    """
    repository, pinned, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repository) or (pinned and not _REVISION.fullmatch(revision)):
        raise UserError(f"{name}: expected a model on the Hub, hub:USER/NAME or hub:USER/NAME@REVISION")
    return repository, revision or None


def located(run_or_file: str | Path, download: bool = True) -> Path:
    """Return the run folder or file of a path, ``pretrained/NAME``, or ``hub:USER/NAME[@REVISION]``.

    A model of the Hub is downloaded, unless the revision is cached. Without ``download`` only the form of its
    name is checked.

    Raises:
        UserError: if there is no such run or model, a model cannot be downloaded, or a folder has no
            checkpoint.
    """
    path, name = Path(run_or_file), str(run_or_file)
    if path.is_dir() and not any((path / "checkpoints").glob("[!.]*.ckpt")):
        raise UserError(f"{path}: no checkpoints/last.ckpt in this folder; name a run folder or a .ckpt file")
    if path.exists():
        return path
    if name.startswith(pretrained.PREFIX):
        return pretrained.find(name)
    if not name.startswith(PREFIX):
        raise UserError(f"{path}: no such run folder or checkpoint")
    repository, revision = parsed(name)
    if not download:
        return Path(repository)
    import huggingface_hub

    with _one_line(name):
        return Path(huggingface_hub.hf_hub_download(repository, MODEL, revision=revision))


def need_token(name: str) -> None:
    """Check that a token is available, without network access.

    Raises:
        UserError: with the ways to set a token.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(f"{name}: a push needs a token; log in with `hf auth login`, or set HF_TOKEN")


def push(name: str, folder: Path, private: bool = False) -> str:
    """Upload the model, its description and its card in one commit, to a new or existing repository.

    Args:
        name: ``USER/NAME``, with or without ``hub:`` before it.
        folder: folder of the three files; other files are not uploaded.
        private: whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        UserError: in one line, if there is no token, or the Hub rejects the upload or cannot be reached.
    """
    repository, revision = parsed(name)
    if revision is not None:
        raise UserError(f"{name}: the push creates the revision; leave out @{revision}")
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
    """Report a failure of the library in one line that names the model and never holds the token."""
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"{name} at {constants.ENDPOINT}: {said}") from error
