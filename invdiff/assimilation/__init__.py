"""Sequential assimilation: forecasts of an ensemble, corrected by the data of each time.

=========  ========================================================================================
analysis   what it is
=========  ========================================================================================
`IEnKF`    iterative ensemble Kalman filter: data explained by states of the cycle before
`EnKF`     ensemble Kalman filter with perturbed observations
`LETKF`    local ensemble transform Kalman filter: nothing drawn, each point for itself
=========  ========================================================================================

Labelled data go to :func:`invdiff.assimilate`.
"""

from invdiff.assimilation.analysis import LETKF, Analysis, EnKF
from invdiff.assimilation.cycle import Cycle, Observation, cycles
from invdiff.assimilation.iterative import IEnKF

__all__ = ["LETKF", "Analysis", "Cycle", "EnKF", "IEnKF", "Observation", "cycles"]
