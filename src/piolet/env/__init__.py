"""Container environments: EDF files compiled once into a container plan."""
