"""Saturation of GPUs and jobs, from the logbook, and the report."""
