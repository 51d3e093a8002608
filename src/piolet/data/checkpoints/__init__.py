"""Checkpoints on disk: which are complete, and which may go. One module a format; nothing here runs what it reads."""
