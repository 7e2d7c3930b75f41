"""Forward operators. The public names stand in ``__init__.pyi`` and are loaded on first use."""

import lazy_loader

# One class must not exist under two names: the folder is also importable from the repository root.
if __name__ != "invdiff.operators":
    raise ImportError(f"import invdiff.operators, not {__name__}")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
