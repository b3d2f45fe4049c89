"""What is written has the modes that the umask asks for, whichever library wrote it: others on the machine can read it."""

import os

import pytest
from small import LAYERS

from shortgpt import PruningPlan, prune_checkpoint, remove_layers, remove_sublayers, save, save_gguf
from shortgpt.checkpoints.fetching import packaged_folder
from shortgpt.checkpoints.own_format import is_own_format
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED
from shortgpt.course.answer_book import AnswerBook
from shortgpt.evaluation.records import ROW, add, write_rows

PLAN = PruningPlan(layers=LAYERS, removed=(2,), model="some/model")


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request):
    if os.name == "nt":
        pytest.skip("Windows has no umask")
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def require_usual_modes(umask, *roots):
    """Roots and all in them; folders open for those whom the umask lets in, files readable."""
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    modes = {str(path): oct(path.stat().st_mode & 0o777) for path in found}
    assert modes == {str(path): oct((0o777 if path.is_dir() else 0o666) & ~umask) for path in found}


def test_checkpoints(umask, tiny, tokenizer, tmp_path):
    dense = save(tiny, tmp_path / "dense", tokenizer=tokenizer)
    pruned = save(remove_layers(tiny, PLAN), tmp_path / "deep" / "pruned", tokenizer=tokenizer, plan=PLAN)
    (dense / "additional_chat_templates").mkdir(mode=0o700)  # the source's own modes are not copied
    (dense / "additional_chat_templates" / "short.jinja").write_text("{{ messages }}")
    (dense / "LICENSE").touch(mode=0o400)
    on_disk = prune_checkpoint(dense, tmp_path / "files", PLAN, progress=False)
    own = save(remove_sublayers(tiny, ffn=[2]), tmp_path / "own", overwrite=True)
    assert is_own_format(own) and (on_disk / "additional_chat_templates").is_dir()
    require_usual_modes(umask, pruned.parent, on_disk, own)


def test_a_gguf_file(umask, tiny, tokenizer, tmp_path):
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text("import pathlib; pathlib.Path('model.gguf').write_bytes(b'GGUF')")
    require_usual_modes(umask, save_gguf(tiny, tokenizer, tmp_path / "x.gguf", converter=converter))


def test_the_cache_of_the_default_model(umask, index):
    folder = packaged_folder(DEFAULT_MODEL)
    require_usual_modes(umask, folder, index.cache / PACKAGED[DEFAULT_MODEL].gguf)


def test_single_files(umask, tmp_path):
    PLAN.to_json(tmp_path / "plan.json")
    PLAN.to_mergekit(tmp_path / "mergekit.yaml")
    write_rows(tmp_path / "grid.csv", [{"removed": 1}])
    add(tmp_path / "results.jsonl", {"key": 1}, [dict.fromkeys(ROW, 0.5)])
    AnswerBook({"1": "Why?"}, tmp_path / "answers.json").keep("1", "because")
    files = [tmp_path / name for name in ("plan.json", "mergekit.yaml", "grid.csv", "results.jsonl", "answers.json")]
    require_usual_modes(umask, *files)
