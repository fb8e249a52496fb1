"""The embedded experiment of MM-OVSeg: training of all methods at equal budgets, evaluation, and what ships."""
