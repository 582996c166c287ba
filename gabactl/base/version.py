"""The version, which the build, the page and the command line read."""

__version__ = "0.1.0"
