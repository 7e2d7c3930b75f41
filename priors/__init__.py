"""Analytic and learned priors; import them as ``invdiff.priors``.

The public names stand in ``__init__.pyi`` and are loaded on first use.
"""

# One class must not exist under two names: the folder is also importable from the repository root.
if __name__ != "invdiff.priors":
    raise ImportError(f"import invdiff.priors, not {__name__}")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
