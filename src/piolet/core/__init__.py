"""The nouns, the runner, configuration, errors and plugins; imports nothing else of piolet."""
