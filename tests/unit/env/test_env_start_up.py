"""What `piolet env compile` loads: it is in every srun, so it is to load little. Modules are counted; time is not."""

import json
import subprocess
import sys

HEAVY = (
    "ClusterShell",
    "duckdb",
    "importlib.metadata",
    "jinja2",
    "multiprocessing",
    "numpy",
    "piolet.lab",
    "piolet.launch",
    "piolet.record",
    "platformdirs",
    "pydantic",
    "rich",
    "structlog",
    "yaml",
)  # fmt: skip - a list
MOST_MODULES = 215  # 188 with Python 3.11; pydantic alone would add 66
CODE = """
import json, sys
from piolet.cli.main import run_command
status = run_command(["env", "compile", "--output", "x.plan", "./0.toml"])
print(json.dumps([status, sorted(sys.modules)]))
"""


def test_compiling_ten_levels_with_a_site_file_loads_little(desk):
    for level in range(9):
        desk.write(f'base_environment = "./{level + 1}.toml"\nmounts = ["/{level}"]', f"{level}.toml")
    desk.write('image = "./rootfs"', "9.toml")
    site = desk.write('[env]\nmounts = ["/site"]\n[vet]\ntimeout_s = 5', "site.toml")
    environ = desk.environ | {"PIOLET_SITE_CONFIG": str(site), "PIOLET_ENV_ARCH": "x86_64"}
    argv = [sys.executable, "-c", CODE]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=desk.directory, env=environ, timeout=20)
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0
    assert (desk.directory / "x.plan").read_text().count("mount bind /site ") == 1
    assert [name for name in HEAVY if name in modules] == []
    assert len(modules) <= MOST_MODULES
