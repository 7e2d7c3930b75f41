"""Scripts that made the shipped priors; anyone can rerun them."""

__all__: list[str] = []
