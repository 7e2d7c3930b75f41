"""The verb `reconstruct`: labelled data in, a labelled posterior ensemble out.

Its sister for full waveform inversion is `invdiff.fwi.invert`; both stand at the root.
"""

from invdiff.verbs.reconstruction import reconstruct

__all__ = ["reconstruct"]
