"""SDCI's tables, figures, readings, costs and findings: what its notebooks call."""
