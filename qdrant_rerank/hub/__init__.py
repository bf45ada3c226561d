"""Model names -> model files.

Takes a name, a hub repository or a directory, and gives checked local paths with what is known of
the model.
"""
