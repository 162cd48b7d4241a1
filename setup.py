"""configs/ goes into the wheel as jaxrl/presets. Everything else is said in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["jaxrl", "jaxrl.*"]), "jaxrl.presets"],
    package_dir={"jaxrl.presets": "configs"},
    package_data={"jaxrl": ["py.typed"], "jaxrl.presets": ["*/*.yaml"], "jaxrl.reports": ["*.html"]},
)
