"""Ways to get the same thing: mean and mean magnitude of every neuron over the response of every trace.

Each module has two functions. ``prepare(model, job)`` loads the model and gives a pass, which does all the work, leaves its
result in a folder and returns the seconds that were extrapolated rather than run (0 but for the per-neuron loop).
``load(folder, job)`` reads the result, ``[moment, trace, layer, d_ff]``, so that the ways can be held against each other.
"""
