"""What papermill drives: the demo, tables, and the training of the embedded models."""
