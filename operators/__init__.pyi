from .base import Composed, HandWritten, Linear, Scaled
from .checks import check_operator
from .deepinv import from_deepinv, to_deepinv, to_deepinv_physics
from .linear import Convolution, Fourier, Identity, Mask, Matrix
from .nonlinear import BlackBox, Lognormal, Magnitude, Saturating
from .radon import LineIntegrals
from .stacked import Stacked
