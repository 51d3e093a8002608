"""Storage for machine learning: what is wrong with how data lies, and what to do about it."""
