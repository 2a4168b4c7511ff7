"""One row for every public function and method: what to call it with, and what it promises. The laws run over it.

A new function gets one row, in the file named after its module; a function without one, and a row without its function,
fail ``test_api.py``. The key of a random function is not in its row: each test hands in a fresh one. Numbers are exact
in bfloat16, and stay valid when they shrink by some tenths, which is how the laws make a batch out of one example.
"""

from cases.adapters import ADAPTED
from cases.case import Case
from cases.distributions import DISTRIBUTIONS
from cases.estimators import ESTIMATORS
from cases.gradients import GRADIENTS
from cases.gumbel import GUMBEL
from cases.metrics import METRICS
from cases.moments import MOMENTS
from cases.ordered import ORDERED
from cases.quantize import QUANTIZE
from cases.recurrent import RECURRENT
from cases.smooth import SMOOTH

__all__ = ["CASES", "Case"]

CASES: tuple[Case, ...] = (
    *GRADIENTS,
    *GUMBEL,
    *MOMENTS,
    *RECURRENT,
    *DISTRIBUTIONS,
    *ADAPTED,
    *QUANTIZE,
    *ORDERED,
    *SMOOTH,
    *METRICS,
    *ESTIMATORS,
)
