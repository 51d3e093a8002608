"""The rules that Piolet brings, one subject a module; each registers in the entry-point group `piolet.rules`."""
