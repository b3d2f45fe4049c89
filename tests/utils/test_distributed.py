"""Several processes: two real ones, started by ``torchrun``, give what one gives, and fail together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import build_tiny, random_batch

from shortgpt import score_layers
from shortgpt.utils.distributed import share, this_process

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from small import build_tiny, random_batch
from shortgpt import score_layers
from shortgpt.utils.distributed import this_process
from test_distributed import BATCHES, spoil

def outcome(model, batches):
    try:
        scores = score_layers(model, batches)
        return {"sums": scores.sums.tolist(), "counts": scores.counts.tolist(), "sha256": scores.sha256}
    except Exception as error:
        return {"error": type(error).__name__, "says": str(error)}

def interrupted():
    yield BATCHES[0]
    raise RuntimeError("the text ended early")

results = {
    "list": outcome(build_tiny(), BATCHES),
    "generator": outcome(build_tiny(), (batch for batch in BATCHES)),
    "one batch": outcome(build_tiny(), BATCHES[:1]),
    "no batch": outcome(build_tiny(), []),
    "interrupted": outcome(build_tiny(), interrupted()),
    "broken": outcome(spoil(build_tiny(), BATCHES[1]), BATCHES),
    "afterwards": outcome(build_tiny(), BATCHES),
}
rank, world = this_process()
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps({"world": world, **results}))
"""
BATCHES = [random_batch(rows=1 + i % 3, tokens=8 + i, seed=i) for i in range(5)]


def spoil(model, batch):
    """Make layer 2 of `model` give NaN when it reads `batch`, and only then."""
    marks = {"now": False}
    first = batch["input_ids"]
    model.model.embed_tokens.register_forward_pre_hook(lambda m, args: marks.update(now=torch.equal(args[0], first)))
    model.model.layers[2].register_forward_hook(lambda m, args, out: out * float("nan") if marks["now"] else out)
    return model


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> list[dict]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("launch")
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # what `accelerate launch --num_processes 2` becomes where there are two GPUs
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    command += [str(folder / "script.py"), str(folder)]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    # another number of threads cuts matrix products elsewhere, and their float32 sums differ in the last bit
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batches"),
    [("list", BATCHES), ("generator", BATCHES), ("one batch", BATCHES[:1]), ("afterwards", BATCHES)],
)
def test_two_processes_give_bit_for_bit_what_one_gives(two_processes, name, batches):
    alone = score_layers(build_tiny(), batches, progress=False)
    for found in two_processes:
        assert found["world"] == 2
        np.testing.assert_array_equal(found[name]["sums"], alone.sums)
        assert found[name]["counts"] == alone.counts.tolist() and found[name]["sha256"] == alone.sha256


def test_each_process_computes_only_its_share_and_the_first_shows_progress(monkeypatch, capsys):
    for rank, expected in enumerate(([0, 3], [1, 4], [2])):
        positions = []

        def pretend(work, rank=rank, positions=positions):
            positions.extend(position for position, _ in work(rank, 3))
            return []

        monkeypatch.setattr("shortgpt.scoring.influence.share", pretend)
        with pytest.raises(ValueError, match="hold no token"):  # what all together pretend
            score_layers(build_tiny(), BATCHES)
        assert positions == expected and ("scoring 6 layers" in capsys.readouterr().err) == (rank == 0)


@pytest.mark.slow
def test_a_failure_in_one_process_is_raised_in_all(two_processes):
    first, second = two_processes
    sentence = second["broken"]["says"]
    assert second["broken"]["error"] == "ValueError" and sentence.startswith("layer 2 gives hidden states with NaN")
    assert first["broken"] == {"error": "ValueError", "says": f"process 1 of 2 stopped: {sentence}"}
    for found in (first, second):
        assert found["interrupted"] == {"error": "RuntimeError", "says": "the text ended early"}
        assert found["no batch"]["error"] == "ValueError" and "hold no token" in found["no batch"]["says"]


@pytest.mark.slow
def test_a_plain_session_stays_plain():
    code = (
        "import torch; from shortgpt.utils.distributed import share, this_process\n"
        "print(this_process(), share(lambda rank, world: [(0, rank), (1, world)]), torch.distributed.is_initialized())\n"
        "from accelerate.state import PartialState; print(PartialState._shared_state == {})"
    )
    # variables left over from somebody else's job, without a launcher's mark
    env = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    run = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines()[-2:] == ["(0, 1) [0, 1] False", "True"]
    assert this_process() == (0, 1) and share(lambda rank, world: [(0, "a")]) == ["a"]
