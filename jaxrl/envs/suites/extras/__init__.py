"""Adapters to suites whose packages are extras of jaxrl: as those beside this folder, one file a suite."""
