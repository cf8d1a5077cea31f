import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands_of(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize(
    "file", ["pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile"]
)
def test_the_distribution_has_one_name_everywhere(file: str) -> None:
    names = set(re.findall(r"\bcrosswalk[-_](?:reid|[a-z]+(?=\[))", (ROOT / file).read_text()))

    assert names <= {PROJECT["name"]}


def test_the_extra_all_has_every_extra_of_use() -> None:
    extras = PROJECT["optional-dependencies"]

    (everything,) = extras["all"]
    of_use = set(extras) - {"all", "dev", "docs"}
    assert (
        set(everything.removeprefix(f"{PROJECT['name']}[").removesuffix("]").split(",")) == of_use
    )


def test_versions_of_python_are_those_that_workflows_test() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    tested = matrix["jobs"]["pinned"]["strategy"]["matrix"]["python"]

    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert versions == tested
    assert PROJECT["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=[path.stem for path in WORKFLOWS])
def test_workflows_run_nothing_but_targets_of_make(workflow: Path) -> None:
    commands = commands_of(workflow)

    assert commands
    assert [line for line in commands if not line.startswith("make ")] == []
    called = {word for line in commands for word in line.split()[1:] if "=" not in word}
    assert called <= TARGETS
