"""Container environments: EDF files compiled once, on the submitting host, into a container plan.

The plan is data: a small text file that the Slurm plugin and `piolet-enter` apply, both in C. Nothing here mounts
anything.

    plan = compile_environment("pytorch", environ=os.environ, cwd=Path.cwd(), settings=settings)
    path = write_plan(plan, plan_directory(settings, os.environ))
    record = lock(plan, environ=os.environ)      # what environment.lock.json holds
"""

from piolet.env.compiling import compile_environment
from piolet.env.locking import lock
from piolet.env.plan import ContainerPlan, plan_directory, write_plan

__all__ = ["ContainerPlan", "compile_environment", "lock", "plan_directory", "write_plan"]
