"""What the lessons' notebooks call: exercises, and one module a lesson."""
