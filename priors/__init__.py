"""Learned and analytic priors; import them as ``invdiff.priors``."""

# One class must not exist under two names: the folder is also importable from the repository root.
if __name__ != "invdiff.priors":
    raise ImportError(f"import invdiff.priors, not {__name__}")
