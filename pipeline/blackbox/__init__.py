"""Adversaries who see no gradient: queries, substitutes, a random forest (section 6, appendix C)."""
