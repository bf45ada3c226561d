"""The pages of the manual's site that are made from code and from recorded figures."""
