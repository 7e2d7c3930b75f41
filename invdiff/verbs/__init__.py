"""The verbs: labelled data in, labelled posterior ensembles out."""

from invdiff.verbs.inversion import invert
from invdiff.verbs.reconstruction import reconstruct

__all__ = ["invert", "reconstruct"]
