"""Piolet makes a Slurm supercomputer serve machine learning: run, vet, record, explain."""

__version__ = "0.1.0"
