"""Demonstrations: complete runs on simulated data with a known truth, and their figures."""

from invdiff.demo.fwi import FWIReport, Score, run_fwi_demo
from invdiff.demo.line import Line, folded_and_faulted, simulate_line
from invdiff.demo.mri import NOISE_STD, OBJECT, DemoReport, bundled_slice, run_demo, simulate

__all__ = [
    "NOISE_STD",
    "OBJECT",
    "DemoReport",
    "FWIReport",
    "Line",
    "Score",
    "bundled_slice",
    "folded_and_faulted",
    "run_demo",
    "run_fwi_demo",
    "simulate",
    "simulate_line",
]
