"""Figures of speed and accuracy. A package of its own, for Devito installs one of the same name."""
