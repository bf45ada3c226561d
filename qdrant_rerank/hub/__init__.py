"""Model names -> model files.

Takes a name, a hub repository or a directory, and gives local paths of checked files, and the
model's entry in the catalog.
"""
