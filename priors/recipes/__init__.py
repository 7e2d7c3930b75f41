"""Scripts that made the shipped priors; anyone can rerun them."""
