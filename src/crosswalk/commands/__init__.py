"""The commands of the program, one module each: ``configure(parser)`` and ``run(options)``.

Both are cheap to import; what a command needs is imported when it runs.
"""
