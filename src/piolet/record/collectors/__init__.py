"""The collectors that come with Piolet, one a file."""
