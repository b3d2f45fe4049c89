"""The record of repairs: steps in the dense numbering, without those whose layers are gone; old records are read."""

from transformers import LlamaConfig

from shortgpt.model.anatomy import REMOVED_FIELD, REPAIR_FIELD
from shortgpt.pruning.repair_record import forget_removed, record_repair, repairs_so_far


def test_steps_are_kept_in_order_and_only_where_layers_are():
    config = LlamaConfig()
    forget_removed(config)
    assert repairs_so_far(config) == [] and not hasattr(config, REPAIR_FIELD)
    record_repair(config, "merge", "gaps", [5], 0)
    record_repair(config, "fold", "all", [4, 2, 3], 16)
    whole = repairs_so_far(config)
    assert whole[1] == {"kind": "fold", "sites": "all", "layers": [2, 3, 4], "samples": 16}
    setattr(config, REMOVED_FIELD, [3, 5])
    forget_removed(config)
    assert repairs_so_far(config) == [whole[1] | {"layers": [2, 4]}]
    setattr(config, REMOVED_FIELD, [2, 3, 4, 5])
    forget_removed(config)
    assert repairs_so_far(config) == [] and len(whole) == 2


def test_one_step_alone_is_what_earlier_releases_wrote():
    config, old = LlamaConfig(), {"kind": "fold", "sites": "gaps", "layers": [1], "samples": 4}
    setattr(config, REPAIR_FIELD, old)
    assert repairs_so_far(config) == [old]
    record_repair(config, "linear", "gaps", [3], 4)
    assert [step["kind"] for step in repairs_so_far(config)] == ["fold", "linear"]
