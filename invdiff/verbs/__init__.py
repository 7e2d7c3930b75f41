"""The verbs: labelled data in, labelled posterior ensembles out."""

from invdiff.verbs.invert import invert
from invdiff.verbs.reconstruct import reconstruct

__all__ = ["invert", "reconstruct"]
