"""Print what the core needs: the project's dependencies without ray, optuna and mlflow."""

import re
import sys
import tomllib
from pathlib import Path

APART = {"ray", "optuna", "mlflow"}

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
core = [line for line in project["dependencies"] if re.split(r"[^\w.-]", line)[0].lower() not in APART]
sys.stdout.write("\n".join(core) + "\n")
