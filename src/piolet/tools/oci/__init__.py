"""Container images as OCI defines them: names, registries, archives, and the one tree that their layers make.

Nothing here keeps anything: where images end up is the caller's affair.
"""
