"""The cost of identification and steering over the model itself: ``python -m benchmarks.speed`` from the repository's root.

One module a measurement; docs/design/performance.md explains each figure. Everything is paired (A B A B) and repeated in
one run, on models built from a configuration and traces of random tokens, so that nothing is downloaded.
"""
