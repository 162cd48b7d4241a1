"""Adapters, one file a suite: each is the only one that imports its package, and only when it is asked for.

A new suite is a file here with names(), make(name, **options) and UNAVAILABLE, and its line in registry.SUITES.
"""
