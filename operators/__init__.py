"""Forward operators; import them as ``invdiff.operators``."""

__all__: list[str] = []

# One class must not exist under two names: the folder is also importable from the repository root.
if __name__ != "invdiff.operators":
    raise ImportError(f"import invdiff.operators, not {__name__}")
