"""The verbs: labelled data in, a labelled ensemble out.

Their sister for full waveform inversion is `invdiff.fwi.invert`; all stand at the root.
"""

from invdiff.verbs.assimilation import assimilate
from invdiff.verbs.reconstruction import reconstruct

__all__ = ["assimilate", "reconstruct"]
