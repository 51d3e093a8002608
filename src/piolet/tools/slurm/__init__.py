"""Slurm: explicit-field text in, typed values out."""
