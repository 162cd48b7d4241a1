"""Adapters, one file a suite: each is the only one that imports its package, and only when it is asked for."""
