"""Analysis of a set of neurons and of the effects of steering it, from a recording and from a few passes over traces."""

from trimtab.analysis.activity import Magnitudes, NeuronMagnitude, NeuronTokens, TokenHit, TopTokens, magnitudes, top_tokens
from trimtab.analysis.drift import Drift, LayerDrift, drift
from trimtab.analysis.layer_probes import LayerProbe, LayerProbes, layer_probes
from trimtab.analysis.perplexity import (
    Perplexity,
    PerplexityChange,
    PerplexityEffect,
    PerplexitySummary,
    compare_perplexity,
    perplexity,
    perplexity_effect,
    text_traces,
)
from trimtab.analysis.ratios import RatioDistribution, Ratios, class_ratios, correct_halves, ratio_distribution
from trimtab.analysis.run_analysis import Analysis, AnalysisSettings, PromptLabels, analyse
from trimtab.analysis.sets import AnyNeurons, LayerHistogram, PairOverlap, TopOverlap, layer_histogram, set_overlaps, top_overlap
from trimtab.analysis.vocabulary import NeuronVocabulary, TokenPush, VocabularyProjection, project_vocabulary

__all__ = [
    "Analysis",
    "AnalysisSettings",
    "AnyNeurons",
    "Drift",
    "LayerDrift",
    "LayerHistogram",
    "LayerProbe",
    "LayerProbes",
    "Magnitudes",
    "NeuronMagnitude",
    "NeuronTokens",
    "NeuronVocabulary",
    "PairOverlap",
    "Perplexity",
    "PerplexityChange",
    "PerplexityEffect",
    "PerplexitySummary",
    "PromptLabels",
    "RatioDistribution",
    "Ratios",
    "TokenHit",
    "TokenPush",
    "TopOverlap",
    "TopTokens",
    "VocabularyProjection",
    "analyse",
    "class_ratios",
    "compare_perplexity",
    "correct_halves",
    "drift",
    "layer_histogram",
    "layer_probes",
    "magnitudes",
    "perplexity",
    "perplexity_effect",
    "project_vocabulary",
    "ratio_distribution",
    "set_overlaps",
    "text_traces",
    "top_overlap",
    "top_tokens",
]
