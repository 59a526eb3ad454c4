"""Shared by tests of several areas: runs of stages and launchers, tiny models, invented data, fake servers.

`quick` selects the tests that need no torch; tests/conftest.py uses it.
"""
