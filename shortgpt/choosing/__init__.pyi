from .by_criterion import (
    choose_by as choose_by,
    choose_repaired as choose_repaired,
    compare_criteria as compare_criteria,
)
from .by_score import choose_layers as choose_layers
from .orders import removal_order as removal_order
from .search import leave_one_out as leave_one_out
from .trials import Trials as Trials
