"""Compute-readiness of allocated nodes, checked before the program starts."""
