"""Slurm: explicit-field text in, typed values out.

One module a command (scontrol, squeue, sinfo, sacct, sbatch, srun, scancel), each a pure `argv`, a pure `parse`
and a join that takes a Runner; `jobs` asks several of them about one job; `allocation` says where this process
is. The forms of Slurm's values have a module each: jobid, states, times, tres. Errors are in `errors`.

The parsers were written against Slurm 22.05, and the replay tests name that version.
"""
