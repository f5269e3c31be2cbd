"""ctrank beside what else one would serve such a model with: same weights, same slates, one machine, one run.

Measured from a virtual environment that holds ctrank and its peers (``requirements.txt``); see ``__main__`` for the
command. Every scorer and server must return the same best ten, with the same scores, before it is timed; Vowpal Wabbit,
whose model is another, is the exception and marked so.
"""
