"""Services as chains of Slurm jobs: what is wanted of one, what its jobs say, and the attendant that each job runs."""
