"""The commands of the command line, a module each: ``add_parser``, and what it runs and takes the exit code from."""
