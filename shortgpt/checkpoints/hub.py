"""What a model's name means: a folder or a Hub id; and the Hub client's errors, each in one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


def folder_or_hub_id(name: str | os.PathLike) -> str:
    """`name` as transformers takes it, if it can be one. Raises FileNotFoundError for a folder that is none, or no model.

    ValueError: an adapter without a model.
    """
    text = str(name)
    if Path(text).expanduser().is_dir():
        folder = Path(text).expanduser()
        if not (folder / "config.json").exists():
            from shortgpt.model.adapters import require_no_adapter_beside

            require_no_adapter_beside(name, folder)
            raise FileNotFoundError(f"{folder} holds no model: it has no config.json")
        return str(folder)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise FileNotFoundError(f"no such folder: {text} (a Hub id looks like 'owner/name')")
    return text


@contextlib.contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """Turn the Hub client's pages of explanation into one sentence that says what to do."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    def causes(error: BaseException | None) -> Iterator[BaseException]:
        while error is not None:
            yield error
            error = error.__cause__ or error.__context__

    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name!r} brings its own model code, which would run on this machine: read it, and to allow it pass "
            "trust_remote_code"
        ) from error
    except (OSError, HfHubHTTPError) as error:
        chain = list(causes(error))
        text = " ".join(str(e) for e in chain)
        if any(isinstance(e, GatedRepoError) for e in chain) or "gated repo" in text:
            raise PermissionError(
                f"{name!r} is gated: accept its licence on huggingface.co and run `hf auth login`, then try again"
            ) from error
        if any(isinstance(e, RepositoryNotFoundError) for e in chain) or "is not a valid model identifier" in text:
            raise FileNotFoundError(
                f"the Hub has no public model {name!r}: check the spelling ('owner/name'), or run `hf auth login` if it "
                "is private"
            ) from error
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"the disk is full: {name!r} could not be stored in the Hub cache") from error
        if "offline" in text.lower() or "connect" in text.lower() or "resolve" in text.lower():
            raise ConnectionError(
                f"{name!r} is not on this machine and the Hub can't be reached: check the name or the connection, unset "
                f"HF_HUB_OFFLINE if it is set, or leave the name out for the packaged model"
            ) from error
        raise
