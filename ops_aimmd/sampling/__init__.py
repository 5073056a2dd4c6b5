"""The OpenPathSampling side: selectors, movers, schemes, learner and hooks."""
