"""Paired statistics, intervals, power and AUROC: numpy and scipy alone, no model and no file.

``values`` loads neither of them. Import from the module that holds the name; the package itself loads nothing.
"""
