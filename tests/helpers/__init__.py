"""Shared by tests of several areas: runs of stages and launchers, tiny models, invented data, fake servers.

`late_imports` and `quick` keep collecting and the quick selection free of torch; tests/conftest.py uses them.
"""
