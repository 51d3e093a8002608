"""Piolet makes a Slurm supercomputer serve machine learning: run, vet, record, explain.

A program that is recorded may say how it does; both calls do nothing elsewhere and never raise:

    piolet.log(step=step, loss=loss, tokens=tokens)
    piolet.phase("checkpoint")
"""

from piolet.metrics import log, phase

__version__ = "0.1.0"
__all__ = ["__version__", "log", "phase"]
