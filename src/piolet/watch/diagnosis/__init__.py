"""Diagnosis: why a job is slow or failed. Rules suspect, a causal pass ranks, findings.json keeps it."""
