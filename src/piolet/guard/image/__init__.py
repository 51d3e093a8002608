"""Scanning container images: every file of every layer, what they are configured to set, and their packages.

Nothing is unpacked and nothing of an image is executed.
"""
