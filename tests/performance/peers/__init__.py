"""django-sked beside others that do scheduled work: `python -m tests.performance.peers`.

Each is installed from the package index into an environment of its own, and driven by its public interface: a program
here that implements `Program`. All have the same servers, the same payload and the same receiver, which notes its start
and does nothing else. What is measured is defined once, in `measuring`, for django-sked as for the others.
"""
