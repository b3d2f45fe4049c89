"""Bytes of safetensors files: what is copied is what was there, whatever torch knows of it."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shortgpt.checkpoints.shards import BUFFER_BYTES, INDEX_FILE, read_shard, read_shards, tensor_bytes, write_tensors


def test_chosen_tensors_keep_their_bytes_under_new_names(tmp_path):
    large = torch.arange(BUFFER_BYTES // 4 + 5, dtype=torch.float32)  # more than one buffer
    state = {"a": torch.ones(3, 5), "b": large, "c": torch.ones(3, dtype=torch.int8), "d": torch.zeros(0)}
    save_file(state, tmp_path / "old", metadata={"format": "pt"})
    shard = read_shard(tmp_path / "old")
    told = []
    names = {"c": "x", "b": "y", "d": "z"}
    write_tensors(shard, names, tmp_path / "new", metadata={"kind": "copy"}, report=told.append)
    again = load_file(tmp_path / "new")
    assert again.keys() == {"x", "y", "z"} and sum(told) == sum(tensor_bytes(shard, name) for name in names)
    assert all(
        torch.equal(again[new], state[old]) and again[new].dtype == state[old].dtype for old, new in names.items()
    )
    with safe_open(tmp_path / "new", framework="pt") as file:
        assert file.metadata() == {"kind": "copy"}


def test_a_file_that_shrinks_while_it_is_read_is_noticed(tmp_path):
    save_file({"a": torch.ones(1000)}, tmp_path / "old")
    shard = read_shard(tmp_path / "old")
    (tmp_path / "old").write_bytes((tmp_path / "old").read_bytes()[:-100])
    with pytest.raises(ValueError, match="became shorter while it was read"):
        write_tensors(shard, {"a": "a"}, tmp_path / "new", metadata={})


def test_of_a_tensor_in_two_files_the_index_tells_which_counts(tmp_path):
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.ones(2), "unlisted": torch.ones(2)}, tmp_path / "2.safetensors")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / INDEX_FILE).write_text(json.dumps(index))
    assert [[*shard.tensors] for shard in read_shards(tmp_path)] == [["a"], ["b", "unlisted"]]
