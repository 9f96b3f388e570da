"""The gate of release 0.1.0, which runs of edition 1 keep: what differs from the present gate, and nothing else.

Inputs, network and training are those of the present gate, with this edition's constants (`FirstGateConfig`); runs of
that release in `tests/runstate/formats` hold both to its results.
"""
