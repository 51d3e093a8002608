"""The checks that come with Piolet, one file each; others register in the entry-point group `piolet.checks`."""
