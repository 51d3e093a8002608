"""Security: secrets and leaking habits in scripts, logs and environments; model files that run code.

A scan yields risks and says what it could not check; a policy judges them. Nothing that is scanned is ever executed.
"""
