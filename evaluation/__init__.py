"""Measure codecs: ours and others, by files that are decoded again."""
