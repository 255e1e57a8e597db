"""Files of a Hugging Face repository, with the optional `huggingface_hub`."""

from __future__ import annotations

from ..errors import UserError

PREFIX = "hf://"


def local_path(url: str) -> str:
    """Bring `hf://OWNER/REPOSITORY/PATH` here by the hub's own client, and return where it is.

    Raises:
        UserError: the client is not installed, or the URL names no file of a repository.
        OSError: the file cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ModuleNotFoundError:
        raise UserError(f"{url} needs huggingface_hub: pip install 'ulga_d2[hub]'") from None
    owner, _, rest = url.removeprefix(PREFIX).partition("/")
    repository, _, path = rest.partition("/")
    if not (owner and repository and path):
        raise UserError(f"{url}: give hf://OWNER/REPOSITORY/PATH")
    return hf_hub_download(f"{owner}/{repository}", path)
