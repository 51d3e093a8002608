"""The recorder: samples GPUs and host into the logbook without touching the program."""
