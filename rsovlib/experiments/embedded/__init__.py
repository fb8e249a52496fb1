"""How the embedded models are made: data, CLIP, DINO, their alignment, and what they score.

``notebooks/training/embedded_models.ipynb`` drives these modules; ``pipeline`` has the steps in their order.
"""
