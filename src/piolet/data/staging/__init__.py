"""Staging: from the shared file system onto every node of a job, along a chain of nodes, each fed by the one before."""
