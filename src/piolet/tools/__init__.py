"""Outside programs and kernel interfaces: one module each, an argv, a pure parser and a join."""
