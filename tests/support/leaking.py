"""A job script with seven leaks, and what must not be found in a logbook. The secrets were made up for the tests."""

HUGGING_FACE = "hf_aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f"
WANDB = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
GIT_PASSWORD = "Tr0ub4dor"  # noqa: S105 - made up
OPENAI = "sk-proj-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg"
SECRETS = (HUGGING_FACE, WANDB, GIT_PASSWORD, OPENAI)

SCRIPT = f"""#!/bin/bash
#SBATCH --nodes=2
# set -x is not on here, nor is printenv
set -ex
export HF_TOKEN={HUGGING_FACE}
export WANDB_API_KEY="{WANDB}"
git clone https://robot:{GIT_PASSWORD}@git.example.org/lab/model.git
cat "$0"
printenv | sort
srun python train.py --api-key {OPENAI} --epochs 3
"""

LEAKS = {
    4: "habit/trace",
    5: "secret/value",
    6: "secret/value",
    7: "secret/value",
    8: "habit/prints-itself",
    9: "habit/prints-environment",
    10: "secret/value",
}
"""The seven leaks, by line."""
