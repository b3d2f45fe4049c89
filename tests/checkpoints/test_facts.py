"""What the Hub's client raises, in one sentence each; and everything else as it was."""

import errno

import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from shortgpt.checkpoints.facts import clear_errors

PAGES = "an explanation\nof many lines, " * 20


def http(kind):
    return kind.__new__(kind)


def wrapped(cause: Exception) -> OSError:
    """As transformers hands it on."""
    error = OSError(PAGES)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (wrapped(http(GatedRepoError)), PermissionError, "'a/b' is gated: accept its licence .*hf auth login"),
        (OSError("You are trying to access a gated repo." + PAGES), PermissionError, "'a/b' is gated"),
        (
            wrapped(http(RepositoryNotFoundError)),
            FileNotFoundError,
            "the Hub has no public model 'a/b': check the spel",
        ),
        (OSError("a/b is not a valid model identifier" + PAGES), FileNotFoundError, "the Hub has no public model"),
        (OSError(errno.ENOSPC, "No space left on device"), OSError, "the disk is full: 'a/b' could not be stored"),
        (
            OSError("We couldn't connect to 'https://huggingface.co'" + PAGES),
            ConnectionError,
            "the Hub can't be reached",
        ),
        (OSError("offline mode is enabled" + PAGES), ConnectionError, "unset HF_HUB_OFFLINE if it is set"),
        (
            ValueError("… set the option `trust_remote_code=True`" + PAGES),
            ValueError,
            "'a/b' brings its own model code",
        ),
    ],
    ids=str,
)
def test_pages_become_one_sentence(error, kind, says):
    with pytest.raises(kind, match=says) as caught, clear_errors("a/b"):
        raise error
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 330
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("n must be 1"), OSError("damaged"), KeyError("x"), http(HfHubHTTPError)])
def test_any_other_error_is_left_as_it_is(error):
    with pytest.raises(type(error)) as caught, clear_errors("a/b"):
        raise error
    assert caught.value is error


def test_nothing_happens_if_nothing_happens():
    with clear_errors("a/b"):
        pass
