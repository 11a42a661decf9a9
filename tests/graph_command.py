"""`ppgen graph` in this process, for the tests of its commands."""

import warnings

from ppgen import cli


def run(*words):
    """`ppgen graph ...`: its status, as a person's shell would show it."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return cli.main(["graph", *(str(word) for word in words)])
