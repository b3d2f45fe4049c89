from .by_score import choose_layers as choose_layers, removal_order as removal_order
from .comparison import compare_criteria as compare_criteria
from .criteria import choose_by as choose_by
from .repaired import choose_repaired as choose_repaired
from .search import leave_one_out as leave_one_out
from .trials import Trials as Trials
